"""A teacher's files: what they describe, and how they are loaded."""
