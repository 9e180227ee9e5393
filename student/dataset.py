"""Random access to the windows of a snapshot, over any number of shards.

Window i is counted over the snapshot's shards in order of their names. A shard is opened when a window of it is
first asked for, and read by row groups (eight windows of 1,024 or so), which a bounded cache keeps.
"""

import os
from bisect import bisect_right
from dataclasses import dataclass, fields, replace
from itertools import accumulate

import numpy as np
from torch.utils.data import Dataset

from schemas import storage
from schemas.dataset import ShardEntry, complete_snapshot, require_split
from schemas.errors import CorruptShardError, FingerprintMismatchError
from schemas.reader import Block, ShardReader
from schemas.shard import ShardMetadata, Split
from schemas.targets import Targets, Windows
from student.block_cache import WeightedLru

CACHE_BYTES = 256 << 20
OPEN_SHARDS = 64


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WindowSample:
    """One window of S positions: its tokens (a `Windows` of one) and their targets; `epoch` picks a replica."""

    index: int
    windows: Windows
    targets: Targets
    epoch: int = 0


class SoftTargetDataset(Dataset[WindowSample]):
    """The windows of one split of a snapshot; a `torch.utils.data.Dataset`.

    Safe to copy into loader workers: each opens files of its own.

    Args:
        url: Directory of the dataset: a path or any fsspec URL.
        split: "train" or "held-out".
        snapshot: Number of the snapshot; None: the latest, which must be complete.
        cache_bytes: Decoded row groups kept in memory, by each process.

    Raises:
        IncompleteDatasetError: There is no such snapshot, or it is not complete.
        UsageError: The split has no windows.
        MissingShardError, CorruptShardError, UnknownFormatVersionError: A shard cannot be read. Indexing raises
            them too.
    """

    def __init__(
        self, url: str, split: Split = "train", *, snapshot: int | None = None, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.snapshot = complete_snapshot(url, snapshot)
        require_split(self.snapshot, split)
        self.split = split
        self._cache_bytes = cache_bytes
        self._shards = [entry for entry in self.snapshot.shards(split) if entry.num_windows]
        self._starts = [0, *accumulate(entry.num_windows for entry in self._shards)]
        self._open_caches()
        self.metadata: ShardMetadata = self._reader(0).metadata

    @property
    def vocab_size(self) -> int:
        """V of the teacher's distribution; all ids are below it."""
        return self.metadata.vocab_size

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
        """Where a window lies, for a message: shard URL and number in it."""
        shard, window = self._locate(index)
        return f"{storage.redact(self.snapshot.shard_url(self._shards[shard]))} window {window}"

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def _block(self, shard: int, window: int) -> tuple[int, Block]:
        """The row group that holds a window, and its first window."""
        reader = self._reader(shard)
        start, stop = reader.block_of(window)
        return start, self._blocks.get((shard, start), lambda: reader.read(start, stop))

    def _reader(self, shard: int) -> ShardReader:
        if self._process != os.getpid():
            # A forked copy shares file positions with its parent: open anew.
            self._open_caches()
        return self._readers.get(shard, lambda: self._open(self._shards[shard]))

    def _open(self, entry: ShardEntry) -> ShardReader:
        url = self.snapshot.shard_url(entry)
        reader = ShardReader(url, footer_digest=entry.footer_digest)
        if reader.num_windows != entry.num_windows:
            raise CorruptShardError(
                f"{storage.redact(url)}: {reader.num_windows} windows, but snapshot {self.snapshot.number} "
                f"counts {entry.num_windows}; restore the file, or remove it and annotate again"
            )
        self._check_same_teacher(reader)
        return reader

    def _check_same_teacher(self, reader: ShardReader) -> None:
        first: ShardMetadata | None = getattr(self, "metadata", None)
        if first is not None and reader.metadata != first:
            raise FingerprintMismatchError(
                f"{storage.redact(reader.url)}: made with other settings (teacher, tokenizer or scheme) than the "
                f"first shard of snapshot {self.snapshot.number}; annotate both with the same, in one directory each"
            )

    def _open_caches(self) -> None:
        self._process = os.getpid()
        self._readers = WeightedLru[int, ShardReader](OPEN_SHARDS, lambda reader: 1, ShardReader.close)
        self._blocks = WeightedLru[tuple[int, int], Block](self._cache_bytes, _num_bytes)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_readers", "_blocks")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open_caches()


class EpochWindows(Dataset[WindowSample]):
    """A dataset indexed by (window, epoch), as a run takes its windows."""

    def __init__(self, windows: SoftTargetDataset) -> None:
        self._windows = windows

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: tuple[int, int]) -> WindowSample:
        window, epoch = index
        return replace(self._windows[window], epoch=epoch)


def _num_bytes(block: Block) -> int:
    """Bytes of the arrays of a block."""
    parts = [part for part in (block.windows, block.targets) if part is not None]
    columns = [getattr(part, field.name) for part in parts for field in fields(part)]
    return sum(column.nbytes for column in columns if isinstance(column, np.ndarray))
