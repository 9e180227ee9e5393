"""What exists of a dataset whose annotation is not finished: a snapshot that no file holds, made from the records."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from logitcask.schemas import storage
from logitcask.schemas.dataset.layout import read_configuration
from logitcask.schemas.dataset.record import read_record
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot, latest_snapshot, load_snapshot
from logitcask.schemas.dataset.split_summary import SplitSummary, sum_records
from logitcask.schemas.stats.sum_by_key import sum_by_key

T = TypeVar("T")

NOT_STORED = 0
_SPLITS = ("held-out", "train")
# A record is a small file, but a large object: few are in memory at a time.
_BATCH_RECORDS = 1_000
_NUM_READERS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class PartialSnapshot(Snapshot):
    """All finished units of a dataset; its number is `NOT_STORED`.

    Attributes:
        entries: Their shards.
    """

    entries: tuple[ShardEntry, ...] = ()

    def each_shard(self, split: str | None = None) -> Iterator[ShardEntry]:
        return (entry for entry in self.entries if split is None or entry.split == split)


def readable_snapshot(out: str, number: int | None = None) -> Snapshot:
    """A snapshot to look at: that number, or the latest, or the finished units where these are more than it has.

    Raises:
        IncompleteDatasetError: There is no dataset, no such snapshot, or no finished unit.
        CorruptShardError: A snapshot or a record is damaged.
        UnknownFormatVersionError: Another version wrote it.
    """
    latest = latest_snapshot(out) if number is None else load_snapshot(out, number)
    if number is not None or (latest is not None and latest.complete):
        assert latest is not None, "a snapshot by number exists"
        return latest
    found = _finished_units(out)
    if found is None or (latest is not None and found.total().num_shards <= latest.total().num_shards):
        return load_snapshot(out)
    return found


def _finished_units(out: str) -> PartialSnapshot | None:
    """None if there are none."""
    from logitcask.schemas.dataset.snapshot_writer import entry_of
    from logitcask.schemas.dataset.token_unit_record import read_token_unit

    configuration = read_configuration(out) if storage.list_members(out, "targets") else None
    if configuration is None:
        return None
    entries: list[ShardEntry] = []
    splits: dict[str, SplitSummary] = {}
    rejected: dict[str, int] = {}
    num_units = 0
    for split in _SPLITS:
        for records in _batches(out, f"targets/{split}", read_record):
            done = [record for record in records if record.status == "done"]
            entries += map(entry_of, done)
            splits = sum_records(done, before=splits)
            rejected = sum_by_key([rejected, *(record.rejected for record in records)])
            num_units += len(records)
    if not entries:
        return None
    num_documents, num_token_shards = 0, 0
    for units in _batches(out, "tokens/units", read_token_unit):
        num_documents += sum(unit.num_documents for unit in units)
        num_token_shards += sum(len(unit.shards) for unit in units)
        rejected = sum_by_key([rejected, *(unit.rejected for unit in units)])
    return PartialSnapshot(
        url=out,
        number=NOT_STORED,
        complete=False,
        identity=configuration.identity,
        num_documents_in=num_documents,
        rejected=rejected,
        splits=splits,
        shards_file="",
        shards_digest="",
        num_missing_units=max(num_token_shards - num_units, 0),
        entries=tuple(entries),
    )


def _batches(out: str, directory: str, read: Callable[[str], T]) -> Iterator[list[T]]:
    """The records of a directory, in the order of their names."""
    from concurrent.futures import ThreadPoolExecutor

    files = storage.list_members(out, directory)
    urls = iter(sorted(file.url for file in files if file.url.endswith(".json")))
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        while batch := list(itertools.islice(urls, _BATCH_RECORDS)):
            yield list(pool.map(read, batch))
