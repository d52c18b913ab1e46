"""Adapters: small trained parts beside the frozen matrices of a base model."""
