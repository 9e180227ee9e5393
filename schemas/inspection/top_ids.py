"""Arithmetic over the heads of many rows at once.

Shapes: T rows, N head entries of all rows.
"""

import numpy as np

from logitcask.schemas.format.targets import Targets


def row_of_entry(targets: Targets) -> np.ndarray:
    """The row that each head entry belongs to, int64 [N]."""
    return np.repeat(np.arange(targets.num_positions), targets.head_widths())


def largest_log_probs(targets: Targets) -> np.ndarray:
    """The largest log-probability of each head, float32 [T]; -inf where a row has no head."""
    largest = np.full(targets.num_positions, -np.inf, np.float32)
    filled = targets.head_widths() > 0
    if filled.any():
        largest[filled] = np.maximum.reduceat(targets.head_log_probs, targets.head_offsets[:-1][filled])
    return largest


def most_probable_ids(targets: Targets) -> np.ndarray:
    """The most probable id of each head, the lowest among equals, int32 [T]; -1 where a row has no head.

    Stored values are rounded, so that an id may be equal to the teacher's first that was second by a little.
    """
    rows = row_of_entry(targets)
    at = np.flatnonzero(targets.head_log_probs == largest_log_probs(targets)[rows])
    first = np.ones(len(at), dtype=bool)
    first[1:] = rows[at][1:] != rows[at][:-1]
    found = np.full(targets.num_positions, -1, np.int32)
    found[rows[at[first]]] = targets.head_ids[at[first]]
    return found
