"""Distillation: a student learns from what a teacher finds likely."""
