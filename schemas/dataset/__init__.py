"""A dataset: a directory of immutable shards with their records, and numbered snapshots of them."""
