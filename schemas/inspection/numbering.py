"""Windows by number: all windows of a snapshot are numbered from 0, over its shards in order."""

from collections.abc import Iterator
from dataclasses import dataclass

from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot
from logitcask.schemas.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberedShard:
    """A shard of a snapshot, and the number of its first window.

    Attributes:
        first_window: Number of the shard's first window.
        entry: The shard.
    """

    first_window: int
    entry: ShardEntry


def numbered_shards(snapshot: Snapshot, split: str | None = None) -> Iterator[NumberedShard]:
    """The shards that have windows, in order; with `split`, only that split's. Numbers count over all splits."""
    first_window = 0
    for entry in snapshot.shards():
        if split in (None, entry.split) and entry.num_windows:
            yield NumberedShard(first_window=first_window, entry=entry)
        first_window += entry.num_windows


def find_window(snapshot: Snapshot, window: str) -> tuple[NumberedShard, int]:
    """The shard that holds a window, and the window's index in it.

    Args:
        snapshot: The snapshot to search.
        window: The window's number; or SHARD:INDEX, as the summary names outliers.

    Raises:
        UsageError: There is no such window.
    """
    name, colon, index = window.rpartition(":")
    if not index.isdecimal():
        raise UsageError(f"--window {window}: expected a number from 0, or SHARD:INDEX")
    total = 0
    for shard in numbered_shards(snapshot):
        wanted = int(index) - (0 if colon else shard.first_window)
        if (not colon or name == shard.entry.name) and 0 <= wanted < shard.entry.num_windows:
            return shard, wanted
        total = shard.first_window + shard.entry.num_windows
    raise UsageError(f"no window {window}: snapshot {snapshot.number} has {total:,} windows, numbered from 0")
