"""Offsets of ragged rows: row t of flat values owns values[offsets[t] : offsets[t + 1]]."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Lists:
    """A list column of T rows: values [N], and offsets of the rows in them, int64 [T + 1], first 0."""

    values: np.ndarray
    offsets: np.ndarray

    def select(self, start: int, stop: int) -> "Lists":
        """Rows start..stop."""
        first, last = self.offsets[start], self.offsets[stop]
        return Lists(values=self.values[first:last], offsets=self.offsets[start : stop + 1] - first)

    @classmethod
    def concatenate(cls, pieces: Sequence["Lists"]) -> "Lists":
        """All rows of one piece or more, in order."""
        if len(pieces) == 1:
            return pieces[0]
        values = np.concatenate([piece.values for piece in pieces])
        return cls(values=values, offsets=offsets_from_lengths(np.concatenate([np.diff(p.offsets) for p in pieces])))


def offsets_from_lengths(lengths: np.ndarray | Sequence[int]) -> np.ndarray:
    """Where each row begins, and where the last one ends, int64 [T + 1], first 0."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
