"""Simulated worlds that tasks are drawn from."""
