"""Router: which tool serves a request, learned from pairs of a request and its tool."""
