"""Reward dimensions: what an answer is worth, one number each."""
