"""The one training loop, its updaters, and the families they draw from."""
