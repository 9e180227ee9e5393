"""The student: a dataset over target shards, the losses, and a trainer. No teacher is loaded for training."""
