"""Make and clean data."""
