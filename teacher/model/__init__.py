"""A teacher's files: where they are, what they describe, and how they are loaded."""
