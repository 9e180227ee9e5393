"""Losses between a teacher's stored targets and a student."""
