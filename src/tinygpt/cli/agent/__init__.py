"""Agent and router."""
