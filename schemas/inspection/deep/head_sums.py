"""Sums over heads in the bytes that shards hold, without decoding their entries.

A byte stands for one of 256 masses, so that a table looked up replaces logarithms and exponentials; what a row is
divided by is one number. And the bytes of a row sort together with its number, which orders all rows at once.

Shapes: T rows, N head entries of all rows.
"""

from dataclasses import dataclass

import numpy as np

from logitcask.schemas.format import quantizer
from logitcask.schemas.format.targets import StoredTargets
from logitcask.schemas.stats.vocabulary_statistics import WIDTHS

# How many of a row's entries, by falling mass, are summed; in the end all.
_ENDS = np.array([*WIDTHS, np.iinfo(np.int64).max])
# The mass of each byte in integer steps: running sums of integers are exact, and six times as fast as those of floats.
_STEPS_PER_MASS = 1 << 48
_MASS_STEPS = np.rint(np.exp(quantizer.HEAD_LOG_PROBS.astype(np.float64)) * _STEPS_PER_MASS).astype(np.int64)
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
    steps = np.empty((len(_ENDS), targets.num_positions), np.int64)
    least_q = np.full(targets.num_positions, 255, np.uint8)
    for start in range(0, targets.num_positions, _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        _sum_chunk(targets.head_q, targets.head_offsets[start : start + _CHUNK_ROWS + 1], steps[:, rows], least_q[rows])
    top = steps / _STEPS_PER_MASS
    tail = np.exp(np.where(targets.has_target(), targets.log_tail, 0).astype(np.float64))
    total = top[-1] + tail
    log_mass = np.log(total).astype(np.float32)
    log_largest = quantizer.dequantize_head(least_q) - log_mass
    return HeadSums(
        log_mass=log_mass,
        least_q=least_q,
        log_largest=np.where(targets.head_widths() > 0, log_largest, np.float32(-np.inf)),
        mass_of_top_k=(top @ (1 / total))[: len(WIDTHS)],
    )


def _sum_chunk(q: np.ndarray, offsets: np.ndarray, steps: np.ndarray, least_q: np.ndarray) -> None:
    """Fills in the mass of the first entries up to each of `_ENDS`, and the least byte of rows that have a head.

    Args:
        q: Bytes of all heads.
        offsets: Of T rows in them, [T + 1].
        steps: In 1/_STEPS_PER_MASS, int64 [ends, T].
        least_q: uint8 [T].
    """
    starts, widths = offsets[:-1] - offsets[0], np.diff(offsets)
    ascending = _sorted_rows(q[offsets[0] : offsets[-1]], widths)
    before = np.zeros(len(ascending) + 1, np.int64)
    # The library looks up other integers ten times slower than those it counts with.
    np.cumsum(_MASS_STEPS.take(ascending.astype(np.intp)), out=before[1:])
    first = before.take(starts)
    for end, steps_T in zip(_ENDS, steps, strict=True):
        np.subtract(before.take(starts + np.minimum(widths, end)), first, out=steps_T)
    least_q[widths > 0] = ascending[starts[widths > 0]]


def _sorted_rows(q: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The bytes of each row by rising value, uint32 [N]: the most probable entry first."""
    keys = np.repeat(np.arange(len(widths), dtype=np.uint32) << _BYTE_BITS, widths)
    keys |= q
    keys.sort()
    keys &= _BYTE
    return keys
