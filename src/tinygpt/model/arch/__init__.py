"""Architectures: what a stack is called by other tools, and how it lies on disk."""
