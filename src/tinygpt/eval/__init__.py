"""Measuring a model: suites that score an endpoint, and tables that compare the scores."""
