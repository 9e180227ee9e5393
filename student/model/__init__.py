"""A student: loading, its output projection, its card, and whether its ids fit a dataset."""
