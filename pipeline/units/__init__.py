"""Units of work: what they are, who holds them, how they are committed, and which are finished."""
