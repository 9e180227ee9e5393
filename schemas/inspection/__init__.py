"""Looking into a dataset: what it is, what the teacher's distributions look like, and window by window what it knew."""
