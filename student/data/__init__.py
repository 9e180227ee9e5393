"""Stored targets as training batches: datasets, mixtures, order, collation."""
