"""The first stage: corpus files become token shards."""
