"""A dataset: a directory of immutable shards, a record beside each, and numbered snapshots of them."""
