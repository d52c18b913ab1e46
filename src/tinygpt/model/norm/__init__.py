"""Norm slots: how activations are kept in scale."""
