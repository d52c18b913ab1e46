"""Verifiers: which of a model's own answers is the best one."""
