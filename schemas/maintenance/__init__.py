"""Commands that check a dataset or derive a new snapshot from it: verify, select, forget, compact, merge."""
