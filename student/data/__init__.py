"""Stored targets as training batches: datasets, order, mixture, collation."""
