"""tinygpt: build, prove and serve a small specialist language model on a machine you own."""

__version__ = "0.1.0"
