"""Hints: what a student's layers should be like, beside what it says."""
