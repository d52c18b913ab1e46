"""Code that a model wrote, run where it can harm nothing, and judged where it cannot lie."""
