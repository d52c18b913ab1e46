"""Formats that conversations are recorded in."""
