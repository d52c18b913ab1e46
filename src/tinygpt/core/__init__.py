"""The ground floor: errors, config, events, files, families. Standard library only (backend.py aside)."""
