"""Ways of making one model of several with the same architecture."""
