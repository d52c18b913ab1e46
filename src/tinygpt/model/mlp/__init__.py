"""MLP slots: what each token does on its own."""
