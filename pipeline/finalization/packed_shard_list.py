"""The shards of a snapshot as compressed tables: a million in about eighty megabytes; entries are created on access."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc

from logitcask.schemas.dataset.layout import shard_path
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.snapshot import ShardEntry

# The path follows from split and name; these entries never refer to rules.
_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("num_windows", pa.int64(), nullable=False),
        pa.field("num_positions", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("footer_digest", pa.string(), nullable=False),
    ]
)
_BATCH_ROWS = 10_000


def entry_rows(records: Sequence[UnitRecord]) -> pa.Table:
    """The rows of finished target shards, in the order of their records."""
    return pa.table({name: [getattr(record, name) for record in records] for name in _SCHEMA.names}, schema=_SCHEMA)


class PackedShardList(Sequence[ShardEntry]):
    """Entries sorted by split, and in the order of the added tables within a split."""

    def __init__(self, tables: Iterable[pa.Table] = ()) -> None:
        self._packed: list[pa.Buffer] = []
        self._num_entries = 0
        self._splits: set[str] = set()
        for table in tables:
            self.add(table)

    def add(self, table: pa.Table) -> None:
        """Appends the rows of a table."""
        self._packed.append(_pack(table))
        self._num_entries += table.num_rows
        self._splits.update(table["split"].unique().to_pylist())

    def __len__(self) -> int:
        return self._num_entries

    @overload
    def __getitem__(self, index: int) -> ShardEntry: ...
    @overload
    def __getitem__(self, index: slice) -> list[ShardEntry]: ...
    def __getitem__(self, index: int | slice) -> ShardEntry | list[ShardEntry]:
        if isinstance(index, slice):
            return list(itertools.islice(self, *index.indices(len(self))))
        if not 0 <= index < len(self):
            raise IndexError(index)
        return next(itertools.islice(self, index, None))

    def __iter__(self) -> Iterator[ShardEntry]:
        for split in sorted(self._splits):
            for packed in self._packed:
                for batch in pa.ipc.open_stream(packed):
                    yield from map(_entry, batch.filter(pc.field("split") == split).to_pylist())


def _pack(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=_BATCH_ROWS)
    return sink.getvalue()


def _entry(row: dict) -> ShardEntry:
    return ShardEntry(path=shard_path("targets", row["split"], row["name"]), **row)
