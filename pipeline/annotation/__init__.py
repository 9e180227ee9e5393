"""The second stage: token shards become target shards."""
