"""Kinds of run: a config in, a directory out; the one place where siblings meet."""
