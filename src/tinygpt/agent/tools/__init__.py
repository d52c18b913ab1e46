"""Executors: what stands behind a tool's name, each a way to carry out a call."""
