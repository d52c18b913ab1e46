"""Modules that learn to guess a model's next tokens, beside it."""
