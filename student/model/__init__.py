"""The student's files: loading, its output projection, and what it was trained on."""
