"""The gate: whether a model may ship, judged against a baseline; what cannot be judged has not passed."""
