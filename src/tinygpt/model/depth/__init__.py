"""Depth slots: which tokens a block computes."""
