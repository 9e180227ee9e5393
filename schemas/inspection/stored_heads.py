"""Sums over heads in the bytes that shards hold, without decoding their entries.

A byte stands for one of 256 masses, so that a table looked up replaces logarithms and exponentials; what a row is
divided by is one number. And the bytes of a row sort together with its number, which orders all rows at once.

Shapes: T rows, N head entries of all rows.
"""

from dataclasses import dataclass

import numpy as np

from schemas import quantizer
from schemas.targets import StoredTargets
from schemas.wide_statistics import WIDTHS

# The first entries of a row, by falling mass, in pieces that end where one of `WIDTHS` does; what follows is the last.
_PIECE_STARTS = np.array([0, *WIDTHS])
_MASSES = np.exp(quantizer.HEAD_LOG_PROBS.astype(np.float64))
_BYTE_BITS, _BYTE = np.uint32(8), np.uint32(255)
# Entries of so many rows stay in the processor's cache; fewer cost more in calls.
_CHUNK_ROWS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSums:
    """What the heads of T rows sum to.

    Attributes:
        log_mass: Log of the sum of head and tail as they are stored, which decoding divides by, float32 [T]; 0 where
            a row has no target.
        least_q: The byte of each head's most probable entry, uint8 [T]; 255 without a head.
        log_largest: The log-probability of that entry once divided, float32 [T]; -inf without a head.
        mass_of_top_k: For each of `WIDTHS`, the sum over all rows of the divided masses of the so many most probable
            entries, float64.
    """

    log_mass: np.ndarray
    least_q: np.ndarray
    log_largest: np.ndarray
    mass_of_top_k: np.ndarray


def sum_heads(targets: StoredTargets) -> HeadSums:
    """The sums of some rows.

    `log_mass` and `log_largest` are what `StoredTargets.decode` computes; the masses are summed in float64, not rounded
    to float32 one by one.
    """
    pieces = np.zeros((targets.num_positions, len(_PIECE_STARTS)))
    least_q = np.full(targets.num_positions, 255, np.uint8)
    for start in range(0, targets.num_positions, _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        _sum_chunk(targets.head_q, targets.head_offsets[start : start + _CHUNK_ROWS + 1], pieces[rows], least_q[rows])
    tail = np.exp(np.where(targets.has_target(), targets.log_tail, 0).astype(np.float64))
    total = pieces @ np.ones(len(_PIECE_STARTS)) + tail
    log_mass = np.log(total).astype(np.float32)
    log_largest = quantizer.dequantize_head(least_q) - log_mass
    return HeadSums(
        log_mass=log_mass,
        least_q=least_q,
        log_largest=np.where(targets.head_widths() > 0, log_largest, np.float32(-np.inf)),
        mass_of_top_k=np.cumsum((1 / total) @ pieces)[: len(WIDTHS)],
    )


def _sum_chunk(q: np.ndarray, offsets: np.ndarray, pieces: np.ndarray, least_q: np.ndarray) -> None:
    """Fills in the mass of each piece, float64 [T, pieces], and the least byte, uint8 [T], of rows that have a head."""
    ascending = _sorted_rows(q[offsets[0] : offsets[-1]], np.diff(offsets))
    starts, widths = offsets[:-1] - offsets[0], np.diff(offsets)
    if not len(ascending):
        return
    in_use = _PIECE_STARTS[: np.searchsorted(_PIECE_STARTS, widths.max())]
    inside = widths[:, None] > in_use
    pieces[:, : len(in_use)][inside] = np.add.reduceat(_MASSES.take(ascending), (starts[:, None] + in_use)[inside])
    least_q[widths > 0] = ascending[starts[widths > 0]]


def _sorted_rows(q: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The bytes of each row by rising value, uint32 [N]: the most probable entry first."""
    keys = np.repeat(np.arange(len(widths), dtype=np.uint32) << _BYTE_BITS, widths)
    keys |= q
    keys.sort()
    keys &= _BYTE
    return keys
