"""Units of work: what they are, who holds them, what is known against them, and which are finished."""
