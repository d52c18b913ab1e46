"""Constraints: what an answer may consist of, enforced token by token."""
