"""The random numbers of sampled tails, from a counter-based generator, so that anyone can repeat every draw.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). A draw depends only on the
window's content, the scheme, the replica and the position, not on the batch, the worker or earlier draws.
"""

import hashlib

import numpy as np

from logitcask.schemas.fingerprints import canonical_json
from logitcask.schemas.format.scheme import Scheme
from logitcask.schemas.format.targets import Windows

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)


def window_key(content_hash: str, scheme: Scheme, replica: int) -> tuple[int, int]:
    """The generator's key for a window: two 32-bit words.

    Args:
        content_hash: Of the window, 32 hex digits.
        scheme: The canonical JSON of the parameters that a draw depends on is part of the key.
        replica: From 0; replicas are independent.
    """
    text = f"{content_hash}\n{canonical_json(scheme.draw_parameters())}\n{replica}"
    word = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(word[:4], "little"), int.from_bytes(word[4:], "little")


def uniforms(key: tuple[int, int], positions: np.ndarray, num_draws: int) -> np.ndarray:
    """Independent uniform numbers strictly between 0 and 1.

    Draw j of position s is word j mod 4 of the block with counter (j div 4, s, 0, 0), as (word + ½) / 2³².

    Args:
        key: From `window_key`.
        positions: Positions in the window, from 0, integers [T].
        num_draws: Draws for each position.

    Returns:
        float64 [T, num_draws].
    """
    num_blocks = -(-num_draws // 4)
    blocks = np.broadcast_to(np.arange(num_blocks, dtype=np.uint32), (len(positions), num_blocks))
    rows = np.broadcast_to(positions.astype(np.uint32)[:, None], blocks.shape)
    zeros = np.zeros_like(blocks)
    words = philox4x32((blocks, rows, zeros, zeros), key)
    flat = np.stack(words, axis=-1).reshape(len(positions), 4 * num_blocks)[:, :num_draws]
    return (flat.astype(np.float64) + 0.5) / 2.0**32


def window_uniforms(windows: Windows, scheme: Scheme) -> np.ndarray:
    """The uniform numbers that a scheme uses, for all rows of all windows.

    Returns:
        float64 [T, `scheme.num_tail_samples`, `scheme.num_uniforms`].
    """
    drawn = np.empty((windows.num_positions, scheme.num_tail_samples, scheme.num_uniforms))
    if not scheme.num_tail_samples:
        return drawn
    bounds = zip(windows.window_offsets[:-1], windows.window_offsets[1:], strict=True)
    for content_hash, (start, stop) in zip(windows.content_hashes(), bounds, strict=True):
        positions = np.arange(stop - start)
        for replica in range(scheme.num_tail_samples):
            key = window_key(content_hash, scheme, replica)
            drawn[start:stop, replica] = uniforms(key, positions, scheme.num_uniforms)
    return drawn


def philox4x32(
    counter: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], key: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Philox4x32-10 of counters under one key.

    Args:
        counter: Four arrays of uint32 with one shape.
        key: Two 32-bit words.

    Returns:
        Four arrays of uint32 with that shape.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = np.array([key[0]], np.uint32), np.array([key[1]], np.uint32)
    for _ in range(_ROUNDS):
        product0, product1 = _MULTIPLIERS[0] * c0.astype(np.uint64), _MULTIPLIERS[1] * c2.astype(np.uint64)
        c0, c2 = _high(product1) ^ c1 ^ k0, _high(product0) ^ c3 ^ k1
        c1, c3 = _low(product1), _low(product0)
        k0, k1 = k0 + _KEY_STEPS[0], k1 + _KEY_STEPS[1]
    return c0, c1, c2, c3


def _high(product: np.ndarray) -> np.ndarray:
    return (product >> np.uint64(32)).astype(np.uint32)


def _low(product: np.ndarray) -> np.ndarray:
    return (product & _LOW).astype(np.uint32)
