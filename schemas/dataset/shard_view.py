"""A shard as a snapshot shows it: without what the snapshot's rules leave out.

The one way from a snapshot to targets. Windows are counted as the snapshot counts them, so that a window left without
rows has no number. What was stored is checked first (digests, checksums, content hashes), then the rules are applied.
"""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType

import numpy as np

from logitcask.schemas import storage
from logitcask.schemas.dataset.layout import record_path
from logitcask.schemas.dataset.record import UnitRecord, read_record
from logitcask.schemas.dataset.row_filter import columns_of, parts_taken, select
from logitcask.schemas.dataset.rules import Rules
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot
from logitcask.schemas.errors import CorruptShardError, MissingShardError
from logitcask.schemas.format.ragged import offsets_from_lengths
from logitcask.schemas.format.reader import Block, ShardReader, StoredBlock, check_windows
from logitcask.schemas.format.targets import Part, kinds_with_target

# Opening a shard on an object store is mostly waiting.
_NUM_READERS = 16


def parts_of_shards(snapshot: Snapshot, entries: Sequence[ShardEntry]) -> list[tuple[Part, ...]]:
    """The parts of each shard as they were written, rules or not: footers only."""

    def parts_of(entry: ShardEntry) -> tuple[Part, ...]:
        with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
            return reader.parts

    with ThreadPoolExecutor(_NUM_READERS) as pool:
        return list(pool.map(parts_of, entries))


def stored_record(snapshot: Snapshot, entry: ShardEntry) -> UnitRecord:
    """The record of a shard.

    Raises:
        MissingShardError: There is none.
    """
    url = storage.inside(snapshot.url, record_path("targets", entry.split, entry.name))
    try:
        record = read_record(url)
    except FileNotFoundError as error:
        raise MissingShardError(f"{storage.redact(url)}: no record; run `logitcask annotate` to rebuild it") from error
    if (record.kind, record.split, record.name) != ("targets", entry.split, entry.name):
        raise CorruptShardError(
            f"{storage.redact(url)}: the record of another shard ({record.kind}, {record.split}, {record.name}); "
            "restore the file, or remove it and run `logitcask annotate` to rebuild it"
        )
    return record


def open_shard(snapshot: Snapshot, entry: ShardEntry, *, copy: str | None = None) -> "SnapshotShard":
    """Opens a shard of a snapshot.

    Args:
        snapshot: States what is left out of the shard.
        entry: One of its shards.
        copy: Path of a copy of the shard to read instead.

    Raises:
        MissingShardError, UnknownFormatVersionError: The shard cannot be read.
        CorruptShardError: It is damaged, or the snapshot has other counts.
    """
    reader = ShardReader(copy or snapshot.shard_url(entry), footer_digest=entry.footer_digest)
    shard = SnapshotShard(reader, snapshot.rules_of(entry))
    if shard.num_windows != entry.num_windows:
        shard.close()
        raise CorruptShardError(
            f"{storage.redact(shard.url)}: {shard.num_windows} windows, but snapshot {snapshot.number} "
            f"counts {entry.num_windows}; restore the file, or remove it and annotate again"
        )
    return shard


class SnapshotShard:
    """Random access to the windows of a shard that rules leave.

    Args:
        reader: The shard; closed together with this.
        rules: What to leave out; none: nothing.
    """

    def __init__(self, reader: ShardReader, rules: Rules) -> None:
        self._reader, self._rules = reader, rules
        self.url, self.metadata = reader.url, reader.metadata
        self._stored_windows = _windows_with_rows(reader, rules)
        self.parts, self.options = reader.parts, reader.options

    @property
    def num_windows(self) -> int:
        return len(self._stored_windows)

    def block_of(self, window: int) -> tuple[int, int]:
        """Windows (start, stop) of the row group that holds `window`: what one read costs anyway."""
        bounds = self._reader.block_of(int(self._stored_windows[window]))
        start, stop = np.searchsorted(self._stored_windows, bounds)
        return int(start), int(stop)

    def blocks(self) -> list[tuple[int, int]]:
        """Windows (start, stop) of all row groups that have any, in order."""
        bounds, start = [], 0
        while start < self.num_windows:
            bounds.append(self.block_of(start))
            start = bounds[-1][1]
        return bounds

    def read(self, start: int = 0, stop: int | None = None, *, options: Collection[str] | None = None) -> Block:
        """As `ShardReader.read`, of the windows that are left."""
        return self.read_stored(start, stop, options=options).decode()

    def read_stored(
        self, start: int = 0, stop: int | None = None, *, options: Collection[str] | None = None, ids: bool = True
    ) -> StoredBlock:
        """As `read`, with targets that are not decoded yet; without `ids`, those of heads may be missing."""
        stored = self._stored_windows[slice(*check_windows(start, stop, self.num_windows))]
        bounds = (int(stored[0]), int(stored[-1]) + 1) if len(stored) else (0, 0)
        wanted = options if options is None else {*options, *columns_of(self._rules)}
        # Rules select rows with all that belongs to them.
        block = self._reader.read_stored(*bounds, options=wanted, ids=ids or bool(self._rules))
        if not self._rules or block.targets is None:
            return block
        windows, targets = select(block.windows, block.targets, self._rules)
        if options is not None and "entropy" not in options:
            targets = replace(targets, entropy=None)
        return StoredBlock(windows=windows, targets=targets)

    def read_tokens(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens and their documents, without targets: reads two small columns and does not check content hashes.

        Returns:
            The token of every row, int32 [T]; its index into `parts`, int32 [T]; the first row of every window, int64
            [W + 1].
        """
        lengths = self._reader.window_lengths
        token, part = self._reader.read_tokens(), self._reader.read_parts()
        stays = parts_taken(self.parts, self._rules)[part] if len(self.parts) else np.zeros(0, dtype=bool)
        window = np.repeat(np.arange(len(lengths)), lengths)[stays]
        left = np.bincount(window, minlength=len(lengths))
        return token[stays], part[stays], offsets_from_lengths(left[left > 0])

    def windows_without_target(self) -> np.ndarray:
        """The windows without any row that has a target, int64, ascending.

        Reads the column of kinds; only where rules take targets away, all columns but the ids.
        """
        if any(rule.concerns_positions for rule in self._rules):
            blocks = [self.read_stored(start, stop, options=(), ids=False).windows for start, stop in self.blocks()]
            counts = [
                np.add.reduceat(block.has_target(), block.window_offsets[:-1], dtype=np.int64) for block in blocks
            ]
            return np.flatnonzero(np.concatenate(counts) == 0) if counts else np.zeros(0, dtype=np.int64)
        taken = kinds_with_target(self._reader.read_kinds())
        if self._rules:
            taken = taken & parts_taken(self.parts, self._rules)[self._reader.read_parts()]
        window = np.repeat(np.arange(len(self._reader.window_lengths)), self._reader.window_lengths)
        counts = np.bincount(window[taken], minlength=len(self._reader.window_lengths))
        return np.flatnonzero(counts[self._stored_windows] == 0)

    def window_hashes(self) -> list[str]:
        """Content hash of every window: as stored, or of what the rules leave (which costs a read of the shard)."""
        if not self._rules:
            return self._reader.window_hashes
        return [found for start, stop in self.blocks() for found in self.read(start, stop).windows.content_hashes()]

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> "SnapshotShard":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _windows_with_rows(reader: ShardReader, rules: Rules) -> np.ndarray:
    """Windows of the shard that keep a row, int64 [W']. Costs one small column, where documents are left out."""
    stays = parts_taken(reader.parts, rules)
    if stays.all():
        return np.arange(reader.num_windows)
    window = np.repeat(np.arange(reader.num_windows), reader.window_lengths)
    return np.unique(window[stays[reader.read_parts()]])
