"""The columns of a shard. Each family of target columns is one class with one row in `registry.TARGET_COLUMNS`."""
