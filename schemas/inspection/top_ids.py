"""The most probable ids of many heads at once.

Shapes: T rows, N head entries of all rows.
"""

import numpy as np

from logitcask.schemas.format.targets import Targets


def row_of_entry(targets: Targets) -> np.ndarray:
    """The row that each head entry belongs to, int64 [N]."""
    return np.repeat(np.arange(targets.num_positions), targets.head_widths())


def most_probable_ids(targets: Targets) -> np.ndarray:
    """The most probable id of each head, the lowest of equal ones, int32 [T]; -1 for a row without a head.

    Stored values are rounded: an id that was slightly less probable than the teacher's first may be equal to it here.
    """
    rows = row_of_entry(targets)
    largest = np.full(targets.num_positions, -np.inf, np.float32)
    np.maximum.at(largest, rows, targets.head_log_probs)
    at = np.flatnonzero(targets.head_log_probs == largest[rows])
    first = np.ones(len(at), dtype=bool)
    first[1:] = rows[at][1:] != rows[at][:-1]
    found = np.full(targets.num_positions, -1, np.int32)
    found[rows[at[first]]] = targets.head_ids[at[first]]
    return found
