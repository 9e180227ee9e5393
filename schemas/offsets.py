"""Offsets of ragged rows: row t of flat values owns values[offsets[t] : offsets[t + 1]]."""

from collections.abc import Sequence

import numpy as np


def offsets_from_lengths(lengths: np.ndarray | Sequence[int]) -> np.ndarray:
    """Where each row begins, and where the last one ends, int64 [T + 1], first 0."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
