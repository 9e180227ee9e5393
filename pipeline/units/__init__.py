"""Units of work: how they are planned, leased, committed and found finished."""
