"""An agent: a model that calls tools, what it may do with them, and the loop between the two."""
