"""Objectives: what a step makes smaller."""
