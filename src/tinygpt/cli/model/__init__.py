"""Train and use a model."""
