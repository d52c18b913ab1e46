"""What a model reads: tokenizers, templates, sources, packing."""
