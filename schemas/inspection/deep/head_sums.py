"""Sums over heads, from their stored bytes, without decoding the entries.

A byte encodes one of 256 masses, so a lookup table replaces logarithms and exponentials; the divisor of a row is one
number. The bytes of all rows are sorted at once, each together with its row number.

Shapes: T rows, N head entries of all rows.
"""

from dataclasses import dataclass

import numpy as np

from logitcask.schemas.format import quantizer
from logitcask.schemas.format.targets import StoredTargets
from logitcask.schemas.stats.vocabulary_statistics import WIDTHS

# Numbers of entries of a row, by falling mass, whose mass is summed; the last one means all.
_ENDS = np.array([*WIDTHS, np.iinfo(np.int64).max])
# The mass of each byte in integer steps: running sums of integers are exact, and six times as fast as sums of floats.
_STEPS_PER_MASS = 1 << 48
_MASS_STEPS = np.rint(np.exp(quantizer.HEAD_LOG_PROBS.astype(np.float64)) * _STEPS_PER_MASS).astype(np.int64)
_BYTE_BITS, _BYTE = np.uint32(8), np.uint32(255)
# The entries of this number of rows fit into the processor's cache; fewer rows spend more time on calls.
_CHUNK_ROWS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSums:
    """Sums over the heads of T rows.

    Attributes:
        log_mass: Log of the stored mass of head and tail, the divisor of decoding, float32 [T]; 0 for a row without
            a target.
        least_q: The byte of each head's most probable entry, uint8 [T]; 255 without a head.
        log_largest: The decoded log-probability of that entry, float32 [T]; -inf without a head.
        mass_of_top_k: For each k of `WIDTHS`, the decoded mass of the k most probable entries of each row, summed over
            all rows, float64.
    """

    log_mass: np.ndarray
    least_q: np.ndarray
    log_largest: np.ndarray
    mass_of_top_k: np.ndarray


def sum_heads(targets: StoredTargets) -> HeadSums:
    """The sums over the heads of `targets`.

    `log_mass` and `log_largest` equal those that `StoredTargets.decode` computes; masses are summed in float64, while
    decoding rounds each of them to float32.
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
    """Fills `steps` with the mass of the first entries up to each of `_ENDS`, and `least_q` for rows with a head.

    Args:
        q: Bytes of all heads.
        offsets: Where the heads of T rows begin in `q`, [T + 1].
        steps: Masses in units of 1/_STEPS_PER_MASS, int64 [ends, T].
        least_q: uint8 [T].
    """
    starts, widths = offsets[:-1] - offsets[0], np.diff(offsets)
    ascending = _sorted_rows(q[offsets[0] : offsets[-1]], widths)
    before = np.zeros(len(ascending) + 1, np.int64)
    # numpy indexes with other integer types ten times slower than with intp.
    np.cumsum(_MASS_STEPS.take(ascending.astype(np.intp)), out=before[1:])
    first = before.take(starts)
    for end, steps_T in zip(_ENDS, steps, strict=True):
        np.subtract(before.take(starts + np.minimum(widths, end)), first, out=steps_T)
    least_q[widths > 0] = ascending[starts[widths > 0]]


def _sorted_rows(q: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The bytes of each row in ascending order, uint32 [N]: the most probable entry comes first."""
    keys = np.repeat(np.arange(len(widths), dtype=np.uint32) << _BYTE_BITS, widths)
    keys |= q
    keys.sort()
    keys &= _BYTE
    return keys
