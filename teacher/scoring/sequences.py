"""How windows enter the model: as rectangles of sequences, each a run of whole parts.

A long window of small parts is cut between parts. `transformers` separates the parts of a sequence by an S × S mask,
and attention costs S² whatever the mask hides. No part attends to another, so a window of 32,768 rows in parts of 500
gives the same numbers as eight sequences of 4,096, at an eighth of the attention and a sixty-fourth of the mask. A
sequence of a single part needs no mask.
"""

import numpy as np

from logitcask.schemas.format.targets import Windows

# Windows up to this length are not cut: a mask of [4096, 4096] is 17 MB. Only a longer part makes a longer sequence.
_SEQUENCE_TOKENS = 4096


def sequence_offsets(windows: Windows, *, packs: bool = True, num_halvings: int = 0) -> np.ndarray:
    """First row of each sequence, and T, int64 [number of sequences + 1].

    Args:
        windows: T rows.
        packs: Whether the model separates the parts of a sequence; if not, every part is a sequence.
        num_halvings: How often the length of sequences is halved, to save memory.
    """
    part_starts = np.flatnonzero(windows.part_starts())
    if not packs:
        return np.append(part_starts, windows.num_positions)
    starts = set(windows.window_offsets.tolist())
    first = 0
    for start, stop in zip(part_starts.tolist(), [*part_starts[1:].tolist(), windows.num_positions], strict=True):
        if start in starts or stop - first > (_SEQUENCE_TOKENS >> num_halvings):
            first = start
            starts.add(start)
    return np.array(sorted(starts), dtype=np.int64)


class Sequences:
    """Consecutive sequences as a rectangle. Its padding is a separate part, to which no other part attends.

    Args:
        windows: T rows.
        offsets: First row of each of the B sequences, and the end of the last; [B + 1].

    Attributes:
        token_BS, position_BS: int64 [B, S].
    """

    def __init__(self, windows: Windows, offsets: np.ndarray) -> None:
        lengths = np.diff(offsets)
        self._first, self._last = int(offsets[0]), int(offsets[-1])
        longest = int(lengths.max())
        sequence = np.repeat(np.arange(len(lengths)), lengths)
        self._place = sequence * longest + np.arange(self._first, self._last) - offsets[sequence]
        self.token_BS = np.zeros((len(lengths), longest), dtype=np.int64)
        self.token_BS.flat[self._place] = windows.token[self._first : self._last]
        self.position_BS = np.maximum(0, np.arange(longest) - lengths[:, None]).astype(np.int64)
        self.position_BS.flat[self._place] = windows.position_ids()[self._first : self._last]

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Indices into the flattened rectangle of those of the given rows that are in these sequences, int64."""
        inside = rows[(rows >= self._first) & (rows < self._last)]
        return self._place[inside - self._first]
