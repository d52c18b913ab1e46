"""Distil, and make data."""
