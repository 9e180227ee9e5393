"""How windows enter the model: as rectangles of sequences, each a run of whole parts.

A long window of small parts is cut between parts. `transformers` separates the parts of a sequence by an S × S mask,
and attention costs S² whatever the mask hides. No part attends to another, so a window of 32,768 rows in parts of 500
gives the same numbers as eight sequences of 4,096, at an eighth of the attention and a sixty-fourth of the mask. A
sequence of a single part needs no mask.

Some models allow less (`teacher.scoring.trial` finds out which): a `Grouping` says what may share a forward pass.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from logitcask.schemas.format.targets import Windows
from logitcask.teacher.text.packing import batches

# Windows up to this length are not cut: a mask of [4096, 4096] is 17 MB. Only a longer part makes a longer sequence.
_SEQUENCE_TOKENS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Grouping:
    """Which parts may share a forward pass.

    Attributes:
        parts: "packed": sequences of many parts. "batched": every part is a sequence, padded to the longest. "alone":
            every part has a forward pass of its own, without padding.
        thresholds: Ascending lengths. A part that is longer than one of them shares no forward pass with a part that
            is not.
    """

    parts: Literal["packed", "batched", "alone"] = "packed"
    thresholds: tuple[int, ...] = ()

    def text(self) -> str:
        """What it means for a user, in a few words."""
        apart = " or ".join(f"{threshold:,}" for threshold in self.thresholds)
        if self.parts == "alone":
            return "each document runs by itself, much slower"
        runs = "documents share windows" if self.parts == "packed" else "each document runs as a sequence, slower"
        return f"{runs}; those of more than {apart} tokens run apart from shorter ones" if apart else runs


ALONE = Grouping(parts="alone")


def forward_offsets(
    windows: Windows, grouping: Grouping, *, batch_tokens: int, num_halvings: int = 0
) -> Iterator[np.ndarray]:
    """For each forward pass, the first row of each of its sequences and the end of the last, int64 [B + 1].

    Args:
        windows: T rows.
        grouping: Which parts may share a forward pass.
        batch_tokens: Maximum positions of a forward pass, padding included; a longer sequence goes alone.
        num_halvings: How often the length of sequences and `batch_tokens` are halved, to save memory.
    """
    offsets, side = _sequences(windows, grouping, num_halvings)
    if grouping.parts == "alone":
        yield from (offsets[index : index + 2] for index in range(len(side)))
        return
    cuts = [0, *(np.flatnonzero(np.diff(side)) + 1).tolist(), len(side)]
    for first, last in itertools.pairwise(cuts):
        for start, stop in batches(offsets[first : last + 1], max(1, batch_tokens >> num_halvings)):
            yield offsets[first + start : first + stop + 1]


def _sequences(windows: Windows, grouping: Grouping, num_halvings: int) -> tuple[np.ndarray, np.ndarray]:
    """First row of each sequence, and T, [B + 1]; and how many thresholds its parts exceed, [B]."""
    part_starts = np.flatnonzero(windows.part_starts())
    part_stops = np.append(part_starts[1:], windows.num_positions)
    side = np.searchsorted(np.array(grouping.thresholds, dtype=np.int64), part_stops - part_starts, side="left")
    if grouping.parts != "packed":
        return np.append(part_starts, windows.num_positions), side
    window_starts = set(windows.window_offsets.tolist())
    first, chosen = 0, []
    for index, (start, stop) in enumerate(zip(part_starts.tolist(), part_stops.tolist(), strict=True)):
        is_apart = index > 0 and side[index] != side[index - 1]
        if start in window_starts or is_apart or stop - first > (_SEQUENCE_TOKENS >> num_halvings):
            first = start
            chosen.append(index)
    return np.append(part_starts[chosen], windows.num_positions), side[chosen]


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
