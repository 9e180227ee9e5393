"""Offline logit distillation: annotate a corpus with a teacher once, train any number of students from the shards."""
