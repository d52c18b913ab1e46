"""Preference losses: make better answers likelier than worse ones."""
