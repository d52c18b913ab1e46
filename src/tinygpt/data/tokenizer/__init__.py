"""How text becomes ids and back."""
