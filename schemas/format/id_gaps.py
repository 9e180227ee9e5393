"""Head ids as gaps between ranks: the layout "compact", which saves a fifth of the bytes of ids and is slower to read.

Ids that are often in heads have low ranks: the frequent ids of a shard, listed in its footer, come first in their
order; all other ids follow in ascending order. The entries of a row are sorted by rank. A row stores its lowest rank,
and then the difference of each rank to the previous one. Most gaps fit into one or two bytes.

Shapes: N entries of T rows, V ids.
"""

import numpy as np

# A longer list costs more in the footer than it saves in the gaps of a shard of 32,768 positions.
NUM_FREQUENT = 4096
# A row, an id or rank, and a byte are packed into 64 bits, so that one sort orders all three.
_VALUE_BITS, _KEY_BITS = 8, 31


def frequent_ids(head_ids: np.ndarray) -> np.ndarray:
    """The most frequent ids, by descending count and then ascending id, int32 [at most 4,096]."""
    ids, counts = np.unique(head_ids, return_counts=True)
    return ids[np.argsort(-counts, kind="stable")][:NUM_FREQUENT].astype(np.int32)


def ids_by_rank(frequent: np.ndarray, vocab_size: int) -> np.ndarray:
    """The id of each rank, int32 [V].

    Raises:
        ValueError: A frequent id occurs twice, or is not in the vocabulary.
    """
    is_other = np.ones(vocab_size, dtype=bool)
    if len(frequent) and not 0 <= frequent.min() <= frequent.max() < vocab_size:
        raise ValueError("a frequent id is outside the vocabulary")
    is_other[frequent] = False
    found = np.concatenate([frequent, np.flatnonzero(is_other)]).astype(np.int32)
    if len(found) != vocab_size:
        raise ValueError("a frequent id is listed twice")
    return found


def to_gaps(
    head_ids: np.ndarray, head_q: np.ndarray, offsets: np.ndarray, by_rank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gaps, int32 [N], and the quantized values in their order, uint8 [N].

    Args:
        head_ids: int32 [N].
        head_q: Quantized values, uint8 [N].
        offsets: int64 [T + 1].
        by_rank: From `ids_by_rank`.
    """
    rank = np.empty(len(by_rank), np.int32)
    rank[by_rank] = np.arange(len(by_rank), dtype=np.int32)
    ranks, q = _sorted_rows(rank[head_ids], head_q, offsets)
    gaps = np.diff(ranks, prepend=np.int32(0))
    first = offsets[:-1][np.diff(offsets) > 0]
    gaps[first] = ranks[first]
    return gaps, q


def from_gaps(
    gaps: np.ndarray, q: np.ndarray, offsets: np.ndarray, by_rank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ids, ascending in each row, int32 [N], and their quantized values, uint8 [N]: the inverse of `to_gaps`.

    Raises:
        ValueError: A rank is outside the vocabulary, or does not ascend.
    """
    is_later = np.ones(len(gaps), dtype=bool)
    is_later[offsets[:-1][np.diff(offsets) > 0]] = False
    if (gaps[is_later] <= 0).any():
        raise ValueError("a gap is not above 0, so a rank occurs twice or ranks do not ascend")
    sums = np.cumsum(gaps, dtype=np.int64)
    widths = np.diff(offsets)
    starts = offsets[:-1][widths > 0]
    ranks = sums - np.repeat(sums[starts] - gaps[starts], widths[widths > 0])
    if len(ranks) and not 0 <= ranks.min() <= ranks.max() < len(by_rank):
        raise ValueError(f"a rank is outside 0..{len(by_rank) - 1}")
    return _sorted_rows(by_rank[ranks], q, offsets)


def _sorted_rows(keys: np.ndarray, values: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys sorted in each row, int32, and their values, uint8."""
    rows = np.repeat(np.arange(len(offsets) - 1, dtype=np.uint64), np.diff(offsets))
    packed = rows << np.uint64(_KEY_BITS + _VALUE_BITS)
    packed |= keys.astype(np.uint64) << np.uint64(_VALUE_BITS)
    packed |= values
    packed.sort()
    mask = np.uint64((1 << _KEY_BITS) - 1)
    return (packed >> np.uint64(_VALUE_BITS) & mask).astype(np.int32), packed.astype(np.uint8)
