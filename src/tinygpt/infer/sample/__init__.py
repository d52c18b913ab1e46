"""Sampling rules: each changes the next token's logits before one is drawn."""
