"""The annotation job: corpus files → token shards → target shards → snapshot, on any Beam runner."""
