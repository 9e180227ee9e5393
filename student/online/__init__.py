"""A live teacher in place of shards: the reference for what cached targets lose."""
