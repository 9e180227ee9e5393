"""Losses between a teacher's targets and a student."""
