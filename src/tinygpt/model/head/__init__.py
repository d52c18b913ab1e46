"""Output heads: from the last hidden states to probabilities of the next token."""
