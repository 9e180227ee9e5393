"""What a shard is: targets, their encoding, and datasets of shards.

The lowest layer. It never imports torch, so that reading statistics or checking files stays light; everything
heavier (pyarrow, fsspec) is imported by the module that needs it, never by this package itself.
"""
