"""Products made of runs: quickstart, specialists."""
