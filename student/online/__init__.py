"""A live teacher instead of stored targets: the reference for how much stored targets lose."""
