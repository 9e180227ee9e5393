"""Ragged rows: flat values with offsets, where row t owns values[offsets[t] : offsets[t + 1]]."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Lists:
    """Lists of T rows: flat values [N] and offsets, int64 [T + 1], the first 0."""

    values: np.ndarray
    offsets: np.ndarray

    def select(self, start: int, stop: int) -> "Lists":
        """Rows start..stop."""
        first, last = self.offsets[start], self.offsets[stop]
        return Lists(values=self.values[first:last], offsets=self.offsets[start : stop + 1] - first)

    @classmethod
    def concatenate(cls, pieces: Sequence["Lists"]) -> "Lists":
        """All rows of `pieces` (at least one) in order."""
        if len(pieces) == 1:
            return pieces[0]
        values = np.concatenate([piece.values for piece in pieces])
        return cls(values=values, offsets=offsets_from_lengths(np.concatenate([np.diff(p.offsets) for p in pieces])))


def filter_lists(offsets: np.ndarray, kept: np.ndarray, emptied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some of T rows of lists, and some of these without their values.

    Args:
        offsets: [T + 1].
        kept: Which rows to keep, bool [T].
        emptied: Which rows lose their values, bool [T].

    Returns:
        Which values to keep, bool [N]; offsets of the kept rows in them, int64 [T' + 1].
    """
    lengths = np.diff(offsets)
    return np.repeat(kept & ~emptied, lengths), offsets_from_lengths(np.where(emptied, 0, lengths)[kept])


def offsets_from_lengths(lengths: np.ndarray | Sequence[int]) -> np.ndarray:
    """Offsets of T rows with these lengths, int64 [T + 1], the first 0."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
