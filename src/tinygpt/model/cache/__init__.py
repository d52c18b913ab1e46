"""Caches for decoding: what a layer remembers of earlier tokens."""
