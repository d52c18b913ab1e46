"""Stages that rows go through: a [[stages]] table each in the file of prep-data, by name."""
