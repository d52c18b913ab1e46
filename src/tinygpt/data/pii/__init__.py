"""Recognisers of what tells of a person."""
