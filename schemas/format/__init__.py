"""One shard: targets, their encoding, and the Parquet file that holds them. FORMAT.md is the specification."""
