"""Using a model: prefill, decode, sampling, stopping, scoring."""
