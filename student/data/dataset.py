"""Random access to the windows of a snapshot, over any number of shards.

Window i is counted over the shards in the order of the snapshot. A shard is opened when one of its windows is first
read. It is read by row groups (about eight windows of 1,024), which a bounded cache keeps.
"""

import os
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from itertools import accumulate

import numpy as np
from torch.utils.data import Dataset

from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import Identity, differences
from logitcask.schemas.dataset.shard_view import SnapshotShard, open_shard
from logitcask.schemas.dataset.snapshot import ShardEntry, complete_snapshot, load_snapshot, require_split
from logitcask.schemas.errors import FingerprintMismatchError, MissingShardError, UsageError
from logitcask.schemas.format.columns.single_values import ENTROPY
from logitcask.schemas.format.metadata import ShardMetadata, Split
from logitcask.schemas.format.reader import StoredBlock
from logitcask.schemas.format.targets import Kind, StoredTargets, Targets, Windows
from logitcask.student.data.local_copies import LocalCopies
from logitcask.student.data.lru_cache import LruCache
from logitcask.student.data.order import WindowSource

CACHE_BYTES = 256 << 20
OPEN_SHARDS = 64
# Few, because a removed copy occupies disk space until it is closed. Opening a copy again costs less (15 ms at 2,048
# windows) than reading a block of it (27 ms at 45 entries per row).
OPEN_COPIES = 2
# Opening a shard on an object store is mostly waiting.
_NUM_READERS = 16


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WindowSample:
    """One window of S positions: its tokens (a `Windows` of one) and their targets; `epoch` chooses a replica."""

    index: int
    windows: Windows
    targets: Targets | StoredTargets
    epoch: int = 0


class SoftTargetDataset(Dataset[WindowSample]):
    """The windows of one split of a snapshot; a `torch.utils.data.Dataset`.

    Safe to copy into loader workers: each opens its own files.

    Args:
        url: Directory of the dataset: a path or any fsspec URL.
        split: "train" or "held-out".
        snapshot: Number of the snapshot; None: the latest, which must be complete.
        cache_bytes: Memory for decoded row groups in each process.
        copies: Local copies of whole shards of a remote dataset; None: shards are read remotely.
        allow_partial: Accept a snapshot that is not complete, as `annotate --publish-every` writes it.

    Raises:
        IncompleteDatasetError: There is no such snapshot, or it is not complete.
        UsageError: The split has no windows.
        MissingShardError, CorruptShardError, UnknownFormatVersionError: A shard cannot be read. Indexing raises
            them too.
    """

    def __init__(
        self,
        url: str,
        split: Split = "train",
        *,
        snapshot: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        copies: LocalCopies | None = None,
        allow_partial: bool = False,
    ) -> None:
        self.snapshot = (load_snapshot if allow_partial else complete_snapshot)(url, snapshot)
        require_split(self.snapshot, split)
        self.split = split
        self._cache_bytes, self._copies = cache_bytes, copies
        self._shards = [entry for entry in self.snapshot.shards(split) if entry.num_windows]
        self._starts = [0, *accumulate(entry.num_windows for entry in self._shards)]
        self._block_starts: dict[int, list[int]] = {}
        self._open_caches()
        # One snapshot may hold corpora under different terms; all of them apply to a student trained on it.
        terms = self.snapshot.identity.corpus_licence
        first: ShardMetadata = self._reader(0).metadata
        self.metadata = replace(first, corpus_licence=terms or first.corpus_licence)

    @property
    def vocab_size(self) -> int:
        """V of the teacher's distribution; all ids are below it."""
        return self.metadata.vocab_size

    @property
    def url(self) -> str:
        """The location of the dataset, without credentials."""
        return storage.redact(self.snapshot.url)

    def sources(self) -> tuple[WindowSource, ...]:
        """What the order of the windows depends on.

        Raises:
            UsageError: No window has a target.
        """
        sizes = tuple(entry.num_windows for entry in self._shards)
        without = self._windows_without_target()
        if len(without) == len(self):
            raise UsageError(
                f"{self.url}: none of the {len(self):,} windows of the split {self.split!r} has a target (they hold "
                "prompts, or a selection took all targets); nothing can be learned from them"
            )
        return (WindowSource(shard_windows=sizes, without_target=without),)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> WindowSample:
        shard, window = self._locate(index)
        start, block = self._block(shard, window)
        windows = block.windows.select(window - start, window - start + 1)
        rows = block.windows.window_offsets[window - start : window - start + 2].tolist()
        assert block.targets is not None, "target shards only"
        return WindowSample(index=index, windows=windows, targets=block.targets.select_rows(*rows))

    def describe(self, index: int) -> str:
        """The location of a window, for a message: shard URL and number in the shard."""
        shard, window = self._locate(index)
        return f"{storage.redact(self.snapshot.shard_url(self._shards[shard]))} window {window}"

    def _windows_without_target(self) -> tuple[int, ...]:
        """Read from the shards, if some of their rows are prompts or lost their targets to a rule."""
        kinds = self.snapshot.splits[self.split].statistics.positions_by_kind
        if Kind.PROMPT not in kinds and not self.snapshot.selections:
            return ()

        def of_shard(entry: ShardEntry) -> np.ndarray:
            shard = open_shard(self.snapshot, entry)
            try:
                return shard.windows_without_target()
            finally:
                shard.close()

        with ThreadPoolExecutor(_NUM_READERS) as pool:
            found = pool.map(of_shard, self._shards)
            return tuple(
                int(start + window)
                for start, windows in zip(self._starts, found, strict=False)
                for window in windows.tolist()
            )

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def _block(self, shard: int, window: int) -> tuple[int, StoredBlock]:
        """The first window of the row group that holds a window, and the group; no file is opened if it is cached."""
        if self._process != os.getpid():
            # A forked copy shares file positions with its parent, so it opens the files again.
            self._open_caches()
        if shard not in self._block_starts:
            self._block_starts[shard] = [start for start, _ in self._reader(shard).blocks()]
        starts = self._block_starts[shard]
        number = bisect_right(starts, window)
        stop = starts[number] if number < len(starts) else self._shards[shard].num_windows
        start = starts[number - 1]
        return start, self._blocks.get((shard, start), lambda: self._read(shard, start, stop))

    def _read(self, shard: int, start: int, stop: int) -> StoredBlock:
        reader = self._reader(shard)
        return reader.read_stored(start, stop, options=_loss_columns(reader))

    def _reader(self, shard: int) -> SnapshotShard:
        return self._readers.get(shard, lambda: self._open(self._shards[shard]))

    def _open(self, entry: ShardEntry) -> SnapshotShard:
        shard = self._open_copy(entry, self._copies) if self._copies else open_shard(self.snapshot, entry)
        self._check_same_teacher(shard)
        return shard

    def _open_copy(self, entry: ShardEntry, copies: LocalCopies) -> SnapshotShard:
        url = self.snapshot.shard_url(entry)
        copy = copies.path(url, entry.digest)
        try:
            return open_shard(self.snapshot, entry, copy=copy)
        except (MissingShardError, FileNotFoundError):
            # Another process removed the copy before we opened it.
            return open_shard(self.snapshot, entry, copy=copies.path(url, entry.digest))

    def _check_same_teacher(self, shard: SnapshotShard) -> None:
        first: ShardMetadata | None = getattr(self, "metadata", None)
        if first is None:
            return
        ours, theirs = Identity.of_shards(first), Identity.of_shards(shard.metadata)
        lines = differences(ours, theirs, "targets", where=("in the first shard", "here"))
        if lines:
            raise FingerprintMismatchError(
                f"{storage.redact(shard.url)}: made with other settings than the first shard of snapshot "
                f"{self.snapshot.number} ({'; '.join(lines)}); annotate each in a directory of its own, or both with "
                "the same settings"
            )

    def _open_caches(self) -> None:
        self._process = os.getpid()
        num_open = OPEN_COPIES if self._copies else OPEN_SHARDS
        self._readers = LruCache[int, SnapshotShard](num_open, lambda shard: 1, SnapshotShard.close)
        self._blocks = LruCache[tuple[int, int], StoredBlock](self._cache_bytes, _num_bytes)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_readers", "_blocks")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open_caches()


class EpochWindows(Dataset[WindowSample]):
    """A dataset indexed by (window, epoch), the pairs that `RankBatches` yields."""

    def __init__(self, windows: "Dataset[WindowSample]") -> None:
        self._windows = windows

    def __len__(self) -> int:
        return len(self._windows)  # type: ignore[arg-type]

    def __getitem__(self, index: tuple[int, int]) -> WindowSample:
        window, epoch = index
        return replace(self._windows[window], epoch=epoch)


def _loss_columns(shard: SnapshotShard) -> list[str]:
    """The optional columns that a loss may need: all but the entropy, which only filters use."""
    return [name for name in shard.options if name != ENTROPY]


def _num_bytes(block: StoredBlock) -> int:
    """The size of the arrays of a block in bytes."""
    parts = [part for part in (block.windows, block.targets) if part is not None]
    columns = [getattr(part, field.name) for part in parts for field in fields(part)]
    return sum(column.nbytes for column in columns if isinstance(column, np.ndarray))
