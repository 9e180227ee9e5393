"""Training a student from stored targets."""
