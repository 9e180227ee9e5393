"""Reading Parquet pages faster than the Parquet library, where their layout is known."""
