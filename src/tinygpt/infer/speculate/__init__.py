"""Speculation: cheap guesses of the next tokens, which one pass of the model checks."""
