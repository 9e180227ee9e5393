"""One window: every token, the teacher's distribution of the next one, and its entropy.

`--json` prints the value of `describe_window`; docs/inspect-json.md explains every key.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from logitcask.schemas import storage
from logitcask.schemas.dataset.shard_view import open_shard
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.dataset.vocabulary import Vocabulary, read_vocabulary
from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.targets import Kind, Targets, Windows
from logitcask.schemas.inspection.numbering import find_window

SCHEMA = "logitcask.window/1"


def dataset_vocabulary(snapshot: Snapshot) -> Vocabulary:
    """The dataset's vocabulary: the text of its ids.

    Raises:
        UsageError: The dataset carries no vocabulary.
        FingerprintMismatchError: The vocabulary's fingerprint is not the one in the snapshot.
    """
    return read_vocabulary(snapshot.url, snapshot.identity.vocabulary_fingerprint)


def vocabulary_if_any(snapshot: Snapshot) -> Vocabulary | None:
    """The dataset's vocabulary; None, with a note on stderr, if an older release left it out. Ids are shown then."""
    try:
        return dataset_vocabulary(snapshot)
    except UsageError as error:
        print(f"logitcask: note: {error}", file=sys.stderr)
        return None


def describe_window(
    snapshot: Snapshot, window: str, vocabulary: Vocabulary | None, *, num_alternatives: int = 5
) -> dict[str, Any]:
    """A window with its targets.

    Args:
        snapshot: The snapshot of the window.
        window: The window's number, or SHARD:INDEX.
        vocabulary: The text of ids; without one, pieces are None.
        num_alternatives: Maximum ids of a head to list, the most probable first.

    Raises:
        UsageError: There is no such window.
        CorruptShardError: The window is damaged.
    """
    shard, index = find_window(snapshot, window)
    with open_shard(snapshot, shard.entry) as opened:
        block = opened.read(index, index + 1)
    assert block.targets is not None
    rows = _Rows(windows=block.windows, targets=block.targets, vocabulary=vocabulary, limit=num_alternatives)
    return {
        "schema": SCHEMA,
        "dataset": storage.redact(snapshot.url),
        "snapshot": snapshot.number,
        "window": shard.first_window + index,
        "split": shard.entry.split,
        "shard": shard.entry.name,
        "window_in_shard": index,
        "parts": list(_describe_parts(block.windows)),
        "rows": [rows.describe(row) for row in range(block.windows.num_positions)],
    }


def _describe_parts(windows: Windows) -> Iterator[dict[str, Any]]:
    starts = np.flatnonzero(windows.part_starts()).tolist()
    for start, stop in zip(starts, [*starts[1:], windows.num_positions], strict=True):
        part = windows.parts[windows.part[start]]
        yield {
            "document": part.id,
            "source": part.source,
            "offset": part.offset,
            "first_row": start,
            "stop_row": stop,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """Describes the rows of a window, one at a time."""

    windows: Windows
    targets: Targets
    vocabulary: Vocabulary | None
    limit: int

    def describe(self, row: int) -> dict[str, Any]:
        targets, next_id = self.targets, int(self.windows.next_token()[row])
        return {
            "row": row,
            **self._piece(int(self.windows.token[row])),
            "kind": Kind(self.windows.kind[row]).name.lower(),
            "next": None if next_id < 0 else self._piece(next_id),
            "loss_nats": _known(-targets.log_next[row]),
            "entropy_nats": None if targets.entropy is None else _known(targets.entropy[row]),
            "tail_mass": _known(np.exp(targets.log_tail[row])),
            "head_width": int(targets.head_offsets[row + 1] - targets.head_offsets[row]),
            "alternatives": self._head(row),
            "drawn": [self._drawn(row, replica) for replica in range(len(targets.tail_samples))],
        }

    def _head(self, row: int) -> list[dict[str, Any]]:
        entries = slice(self.targets.head_offsets[row], self.targets.head_offsets[row + 1])
        ids, log_probs = self.targets.head_ids[entries], self.targets.head_log_probs[entries]
        order = np.argsort(-log_probs, kind="stable")[: self.limit]
        return [{**self._piece(int(ids[i])), "p": float(np.exp(log_probs[i]))} for i in order]

    def _drawn(self, row: int, replica: int) -> list[dict[str, Any]]:
        """The most frequently drawn ids, and their counts."""
        sample = self.targets.tail_samples[replica]
        ids, times = np.unique(sample.ids[sample.offsets[row] : sample.offsets[row + 1]], return_counts=True)
        order = np.argsort(-times, kind="stable")[: self.limit]
        return [{**self._piece(int(ids[i])), "times": int(times[i])} for i in order]

    def _piece(self, token_id: int) -> dict[str, Any]:
        piece = None if self.vocabulary is None else self.vocabulary.piece(token_id).decode(errors="replace")
        return {"id": token_id, "piece": piece}


def _known(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
