"""How log-probabilities become integers, and back.

Head: one byte q stands for h(q) = −u·(1 + u) nats with u = q/64. The step grows with the distance from zero, because
an error in an entry's log-probability costs in proportion to its probability; the formula is short enough for SQL,
and every h(q) is exact in float32. Against a 256-entry table fitted to minimise bytes it costs 1.7 % of a shard.
Tail, next-token log-prob and entropy: sixteen bits at a step of 1/2048 nat, which is lossless in practice.
"""

import numpy as np

NAME = "u(1+u)/64 + 1/2048"

STEPS_PER_NAT = 2048
# A tail of no mass at all; its term is omitted from sums.
ZERO_TAIL = 65535
_LARGEST = 65535

_U = np.arange(256) / 64
HEAD_LOG_PROBS = (-_U * (1 + _U)).astype(np.float32)
"""h(q) for each byte q, nats, float32 [256], falling from 0 to −19.86."""

_HEAD_PROBS = np.exp(HEAD_LOG_PROBS.astype(np.float64))
# Beyond midpoint q a value is nearer to h(q + 1) than to h(q); exact in float64.
_MIDPOINTS = np.append(-(HEAD_LOG_PROBS[1:].astype(np.float64) + HEAD_LOG_PROBS[:-1]) / 2, np.inf)

# Values quantised at a time: what is computed on the way stays in the processor's cache (twice as fast).
_BLOCK_ENTRIES = 1 << 14


def quantize_head(log_probs: np.ndarray) -> np.ndarray:
    """Log-probabilities (nats, any shape, ≤ 0) to bytes, same shape; below −19.86 they saturate.

    A value goes to the nearest h(q); exactly between two, to the smaller q.
    """
    flat = log_probs.reshape(-1)
    q = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), _BLOCK_ENTRIES):
        block = slice(start, start + _BLOCK_ENTRIES)
        q[block] = _nearest(-flat[block].astype(np.float64))
    return q.reshape(log_probs.shape)


def _nearest(depth: np.ndarray) -> np.ndarray:
    # Solving u(1 + u) = depth gives the q whose h(q) is the last one not below the value.
    q = np.minimum(32 * (np.sqrt(1 + 4 * depth) - 1), 255).astype(np.uint8)
    return q + (depth > _MIDPOINTS[q]).astype(np.uint8)


def dequantize_head(q: np.ndarray) -> np.ndarray:
    """Bytes to log-probabilities in nats, float32, same shape, not yet renormalised."""
    return HEAD_LOG_PROBS[q]


def quantize_nats(values: np.ndarray, *, largest: int = _LARGEST) -> np.ndarray:
    """Non-negative nats to steps of 1/2048, uint16, same shape, ties to even; beyond `largest` they saturate.

    NaN (no value) becomes 0 and is masked by the caller.
    """
    steps = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=np.inf) * STEPS_PER_NAT
    return np.clip(np.rint(steps), 0, largest).astype(np.uint16)


def dequantize_nats(steps: np.ndarray) -> np.ndarray:
    """Steps of 1/2048 to nats, float32, same shape (exact)."""
    return steps.astype(np.float32) / STEPS_PER_NAT


def quantize_tail(log_tail: np.ndarray) -> np.ndarray:
    """Log tail mass (≤ 0, −inf for none) to uint16; the smallest non-zero tail stored is exp(−32) of mass."""
    steps = quantize_nats(-log_tail, largest=ZERO_TAIL - 1)
    return np.where(np.isneginf(log_tail), np.uint16(ZERO_TAIL), steps)


def dequantize_tail(steps: np.ndarray) -> np.ndarray:
    """uint16 to log tail mass, float32, −inf for a zero tail, not yet renormalised."""
    return np.where(steps == ZERO_TAIL, np.float32(-np.inf), -dequantize_nats(steps))


def decode_targets(q: np.ndarray, head_offsets: np.ndarray, log_tail: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of head and tail, divided by their sum in each row, so that a decoded target sums to one.

    Without this the sum misses one by up to a per cent, and the "KL" can go negative.

    Args:
        q: uint8 [N].
        head_offsets: int64 [T + 1].
        log_tail: float32 [T], −inf for zero, NaN for no target.

    Returns:
        Head log-probabilities [N] and log tail mass [T], float32, nats.
    """
    widths = np.diff(head_offsets)
    mass = np.exp(np.nan_to_num(log_tail.astype(np.float64), nan=0.0, neginf=-np.inf))
    filled = widths > 0
    # Bytes are indices for two tables; numpy is slow at converting them, so it is done once.
    index = q.astype(np.intp)
    if len(q):
        mass[filled] += np.add.reduceat(_HEAD_PROBS.take(index), head_offsets[:-1][filled])
    log_mass = np.log(mass).astype(np.float32)
    head_log_probs = HEAD_LOG_PROBS.take(index)
    head_log_probs -= np.repeat(log_mass, widths)
    return head_log_probs, log_tail - log_mass
