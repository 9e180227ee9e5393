"""Quantizes log-probabilities to integers, and decodes them.

Head: one byte q represents h(q) = −u·(1 + u) nats with u = q/64. The step grows with the distance from zero, because an
error in an entry's log-probability costs in proportion to its probability. The formula is short enough for SQL, and
every h(q) is exact in float32. Compared with a 256-entry table fitted to minimize bytes it costs 1.7 % of a shard.
Tail, next-token log-probability and entropy: sixteen bits at a step of 1/2048 nat, which is lossless in practice.
"""

import numpy as np

STEPS_PER_NAT = 2048
# A tail without mass; its term is omitted from sums.
ZERO_TAIL = 65535
_LARGEST = 65535

_U = np.arange(256) / 64
HEAD_LOG_PROBS = (-_U * (1 + _U)).astype(np.float32)
"""h(q) for each byte q, nats, float32 [256], falling from 0 to −19.86."""

_HEAD_PROBS = np.exp(HEAD_LOG_PROBS.astype(np.float64))
# Below −midpoint q, a value is nearer to h(q + 1) than to h(q); exact in float64.
_MIDPOINTS = np.append(-(HEAD_LOG_PROBS[1:].astype(np.float64) + HEAD_LOG_PROBS[:-1]) / 2, np.inf)
# How far a probability may be from that of its q: to the farther end of the values that become q.
_HEAD_ERRORS = np.maximum(np.exp(-np.append(0, _MIDPOINTS[:-1])) - _HEAD_PROBS, _HEAD_PROBS - np.exp(-_MIDPOINTS))
_TAIL_ERROR = np.expm1(0.5 / STEPS_PER_NAT)

# Values quantized at a time: the intermediate results fit into the processor's cache (twice as fast).
_BLOCK_ENTRIES = 1 << 14


def quantize_head(log_probs: np.ndarray) -> np.ndarray:
    """Log-probabilities (nats, any shape, ≤ 0) to bytes, same shape; values below −19.86 saturate.

    A value becomes the q with the nearest h(q), on a tie the smaller q.
    """
    flat = log_probs.reshape(-1)
    q = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), _BLOCK_ENTRIES):
        block = slice(start, start + _BLOCK_ENTRIES)
        q[block] = _nearest(-flat[block].astype(np.float64))
    return q.reshape(log_probs.shape)


def _nearest(depth: np.ndarray) -> np.ndarray:
    # Solving u(1 + u) = depth gives the largest q whose h(q) is not below the value.
    q = np.minimum(32 * (np.sqrt(1 + 4 * depth) - 1), 255).astype(np.uint8)
    return q + (depth > _MIDPOINTS[q]).astype(np.uint8)


def dequantize_head(q: np.ndarray) -> np.ndarray:
    """Bytes to log-probabilities in nats, float32, same shape, not yet renormalized."""
    return HEAD_LOG_PROBS[q]


def quantize_nats(values: np.ndarray, *, largest: int = _LARGEST) -> np.ndarray:
    """Non-negative nats to steps of 1/2048, uint16, same shape, ties to even; values above `largest` steps saturate.

    NaN (no value) becomes 0; the caller masks it.
    """
    steps = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=np.inf) * STEPS_PER_NAT
    return np.clip(np.rint(steps), 0, largest).astype(np.uint16)


def dequantize_nats(steps: np.ndarray) -> np.ndarray:
    """Steps of 1/2048 to nats, float32, same shape (exact)."""
    return steps.astype(np.float32) / STEPS_PER_NAT


def quantize_tail(log_tail: np.ndarray) -> np.ndarray:
    """Log tail mass (≤ 0, −inf for none) to uint16; the smallest stored non-zero tail is exp(−32) of mass."""
    steps = quantize_nats(-log_tail, largest=ZERO_TAIL - 1)
    return np.where(np.isneginf(log_tail), np.uint16(ZERO_TAIL), steps)


def dequantize_tail(steps: np.ndarray) -> np.ndarray:
    """uint16 to log tail mass, float32, −inf for a zero tail, not yet renormalized."""
    return np.where(steps == ZERO_TAIL, np.float32(-np.inf), -dequantize_nats(steps))


def mass_of(q: np.ndarray, head_offsets: np.ndarray, log_tail: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The stored mass of head and tail, before renormalization, and how far rounding may have moved it from one.

    Args:
        q, head_offsets, log_tail: As for `decode_targets`.

    Returns:
        Both float64 [T]; without a target the tail counts as one.
    """
    index = q.astype(np.intp)
    mass = sum_rows(_HEAD_PROBS.take(index), head_offsets) + tail_mass(log_tail)
    return mass, sum_rows(_HEAD_ERRORS.take(index), head_offsets) + _TAIL_ERROR


def sum_rows(entries: np.ndarray, head_offsets: np.ndarray) -> np.ndarray:
    """The sum of the entries of each row, float64 [T].

    Args:
        entries: One value for each head entry, [N].
        head_offsets: int64 [T + 1].
    """
    sums = np.zeros(len(head_offsets) - 1)
    if len(entries):
        filled = np.diff(head_offsets) > 0
        sums[filled] = np.add.reduceat(entries, head_offsets[:-1][filled], dtype=np.float64)
    return sums


def tail_mass(log_tail: np.ndarray) -> np.ndarray:
    """The mass of tails, float64 [T]; one without a target."""
    return np.exp(np.nan_to_num(log_tail.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf))


def decode_targets(q: np.ndarray, head_offsets: np.ndarray, log_tail: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of head and tail, renormalized together in each row, so that a decoded target sums to one.

    Without renormalization the sum differs from one by up to 1 %, and the "KL" can become negative.

    Args:
        q: uint8 [N].
        head_offsets: int64 [T + 1].
        log_tail: float32 [T], −inf for zero, NaN for no target.

    Returns:
        Head log-probabilities [N] and log tail mass [T], float32, nats.
    """
    # The bytes index two tables; numpy converts them to indices slowly, so convert once.
    index = q.astype(np.intp)
    mass = sum_rows(_HEAD_PROBS.take(index), head_offsets) + tail_mass(log_tail)
    log_mass = np.log(mass).astype(np.float32)
    head_log_probs = HEAD_LOG_PROBS.take(index)
    head_log_probs -= np.repeat(log_mass, np.diff(head_offsets))
    return head_log_probs, log_tail - log_mass
