"""Reading a dataset: one snapshot of it, whose rules are applied to all that is read.

dataset = Dataset("cask")
for windows, targets in dataset.blocks("train"):
    ...
with dataset.open(dataset.shards("train")[0]) as shard:
    window = shard.read(7, 8).windows
"""

from collections.abc import Collection, Iterator
from functools import cached_property

from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.shard_view import SnapshotShard, open_shard
from logitcask.schemas.dataset.snapshot import ShardEntry, complete_snapshot
from logitcask.schemas.dataset.vocabulary import Vocabulary, read_vocabulary
from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.targets import Targets, Windows


class Dataset:
    """A complete snapshot of a dataset.

    Args:
        url: Directory of the dataset: a path or any fsspec URL.
        snapshot: Number of the snapshot; None: the latest.

    Attributes:
        snapshot: The snapshot, with totals and statistics by split.

    Raises:
        IncompleteDatasetError: There is no such snapshot, or it is not complete.
        CorruptShardError: The snapshot is damaged.
        UnknownFormatVersionError: A later version wrote it.
    """

    def __init__(self, url: str, snapshot: int | None = None) -> None:
        self.snapshot = complete_snapshot(url, snapshot)

    @property
    def identity(self) -> Identity:
        """The settings of the dataset."""
        return self.snapshot.identity

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have windows."""
        return tuple(sorted(split for split, summary in self.snapshot.splits.items() if summary.num_windows))

    @cached_property
    def metadata(self) -> ShardMetadata:
        """What the first shard says of itself: tokenizer, teacher, scheme, window size.

        Raises:
            UsageError: There is no shard.
        """
        for entry in self.snapshot.each_shard():
            with self.open(entry) as shard:
                return shard.metadata
        raise UsageError(f"{storage.redact(self.snapshot.url)}: snapshot {self.snapshot.number} has no shards")

    def shards(self, split: str | None = None) -> list[ShardEntry]:
        """The shards of one split, or of all, in the snapshot's order.

        Raises:
            MissingShardError, CorruptShardError: The list of shards is missing or damaged.
        """
        return self.snapshot.shards(split)

    def open(self, entry: ShardEntry) -> SnapshotShard:
        """Random access to the windows of a shard: `read(start, stop)`.

        Raises:
            MissingShardError, CorruptShardError, UnknownFormatVersionError: The shard cannot be read.
        """
        return open_shard(self.snapshot, entry)

    def blocks(
        self, split: str | None = None, *, options: Collection[str] | None = None
    ) -> Iterator[tuple[Windows, Targets]]:
        """All windows and their decoded targets, some windows at a time: the row groups of each shard.

        Args:
            split: "train" or "held-out"; None: all splits.
            options: The optional columns to read (`entropy`, `tail_sample`, ...); None: all.

        Raises:
            MissingShardError, CorruptShardError, UnknownFormatVersionError: A shard cannot be read.
        """
        for entry in self.snapshot.each_shard(split):
            with self.open(entry) as shard:
                for start, stop in shard.blocks():
                    block = shard.read(start, stop, options=options)
                    assert block.targets is not None, "a snapshot lists target shards"
                    yield block.windows, block.targets

    def vocabulary(self) -> Vocabulary:
        """The bytes of every token id.

        Raises:
            UsageError: The dataset does not state them.
        """
        return read_vocabulary(self.snapshot.url, self.identity.vocabulary_fingerprint)
