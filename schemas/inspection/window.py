"""One window as the teacher saw it: every token, what the teacher expected next, and how sure it was.

The value of `describe_window` is what `--json` prints; docs/inspect-json.md explains every key.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from logitcask.schemas import storage
from logitcask.schemas.dataset.shard_view import open_shard
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot
from logitcask.schemas.dataset.vocabulary import Vocabulary, read_vocabulary
from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.targets import Kind, Targets, Windows

SCHEMA = "logitcask.window/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberedShard:
    """A shard of a snapshot and where the numbers of its windows begin.

    Attributes:
        first_window: Number of its first window, counted over the snapshot's shards in order.
        entry: The shard.
    """

    first_window: int
    entry: ShardEntry


def numbered_shards(snapshot: Snapshot, split: str | None = None) -> Iterator[NumberedShard]:
    """The snapshot's shards (of one split) with windows, in order. Windows are numbered over all splits, from 0."""
    first_window = 0
    for entry in snapshot.shards():
        if split in (None, entry.split) and entry.num_windows:
            yield NumberedShard(first_window=first_window, entry=entry)
        first_window += entry.num_windows


def dataset_vocabulary(snapshot: Snapshot) -> Vocabulary:
    """What the dataset's ids mean.

    Raises:
        UsageError: It does not say. FingerprintMismatchError: It says so of another vocabulary.
    """
    return read_vocabulary(snapshot.url, snapshot.identity.vocabulary_fingerprint)


def find_window(snapshot: Snapshot, window: str) -> tuple[NumberedShard, int]:
    """The shard that holds a window, and the window's index in it.

    Args:
        snapshot: Where to look.
        window: Its number over all shards of the snapshot, from 0; or SHARD:INDEX, as the summary names outliers.

    Raises:
        UsageError: There is no such window.
    """
    name, colon, index = window.rpartition(":")
    if not index.isdecimal():
        raise UsageError(f"--window {window}: give a number from 0, or SHARD:INDEX")
    total = 0
    for shard in numbered_shards(snapshot):
        wanted = int(index) - (0 if colon else shard.first_window)
        if (not colon or name == shard.entry.name) and 0 <= wanted < shard.entry.num_windows:
            return shard, wanted
        total = shard.first_window + shard.entry.num_windows
    raise UsageError(f"no window {window}: snapshot {snapshot.number} has {total:,} windows, numbered from 0")


def describe_window(
    snapshot: Snapshot, window: str, vocabulary: Vocabulary | None, *, num_alternatives: int = 5
) -> dict[str, Any]:
    """A window with its targets.

    Args:
        snapshot: Where it is.
        window: Which one (`find_window`).
        vocabulary: Gives ids their text; without one pieces are None.
        num_alternatives: Most ids of a head that are listed, the most probable first.

    Raises:
        UsageError: There is no such window. CorruptShardError: It is damaged.
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
    """Describes single rows of a window."""

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
        """The ids drawn most often, and how often."""
        sample = self.targets.tail_samples[replica]
        ids, times = np.unique(sample.ids[sample.offsets[row] : sample.offsets[row + 1]], return_counts=True)
        order = np.argsort(-times, kind="stable")[: self.limit]
        return [{**self._piece(int(ids[i])), "times": int(times[i])} for i in order]

    def _piece(self, token_id: int) -> dict[str, Any]:
        piece = None if self.vocabulary is None else self.vocabulary.piece(token_id).decode(errors="replace")
        return {"id": token_id, "piece": piece}


def _known(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
