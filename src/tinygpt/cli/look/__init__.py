"""Look inside and measure."""
