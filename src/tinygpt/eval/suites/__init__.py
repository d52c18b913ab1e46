"""Suites: `load(config)` gives examples, `score(endpoint, examples, config)` gives rows."""
