"""The cost planner: the cost of an annotation and of training from it, before it runs."""
