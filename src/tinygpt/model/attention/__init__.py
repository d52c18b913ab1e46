"""Attention slots: how tokens read one another."""
