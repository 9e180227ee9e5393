"""The plan of the second stage, a million units in about a hundred megabytes: columns, and units made on demand."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import pyarrow as pa

from logitcask.pipeline.units.units import AnnotationUnit, TokenShard, annotation_unit

_SHARD_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("num_windows", pa.int64(), nullable=False),
        pa.field("num_positions", pa.int64(), nullable=False),
        pa.field("num_documents", pa.int64(), nullable=False),
        pa.field("footer_digest", pa.string(), nullable=False),
    ]
)
_BATCH_SHARDS = 10_000


class AnnotationPlan(Sequence[AnnotationUnit]):
    """One unit a token shard, in the order of the shards."""

    def __init__(self, shards: pa.Table, settings_fingerprint: str) -> None:
        self.shards = shards
        self._settings_fingerprint = settings_fingerprint

    def __len__(self) -> int:
        return self.shards.num_rows

    @overload
    def __getitem__(self, index: int) -> AnnotationUnit: ...
    @overload
    def __getitem__(self, index: slice) -> list[AnnotationUnit]: ...
    def __getitem__(self, index: int | slice) -> AnnotationUnit | list[AnnotationUnit]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            assert step == 1
            rows = self.shards.slice(start, stop - start).to_pylist()
            return [annotation_unit(TokenShard(**row), self._settings_fingerprint) for row in rows]
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = {name: self.shards[name][index].as_py() for name in _SHARD_SCHEMA.names}
        return annotation_unit(TokenShard(**row), self._settings_fingerprint)

    def __iter__(self) -> Iterator[AnnotationUnit]:
        for block in self.blocks(_BATCH_SHARDS):
            yield from block

    def blocks(self, num_units: int) -> Iterator[list[AnnotationUnit]]:
        """The units in order, so many at a time."""
        for start in range(0, len(self), num_units):
            yield self[start : start + num_units]


def plan_annotation_units(shards: Iterable[TokenShard], settings_fingerprint: str) -> AnnotationPlan:
    """One unit a token shard, named by the shard and the fingerprint of all else that changes its targets."""
    return AnnotationPlan(shard_table(shards), settings_fingerprint)


def shard_table(shards: Iterable[TokenShard]) -> pa.Table:
    """Token shards as columns; reads the iterable once and never holds many of it."""
    iterator = iter(shards)
    batches = []
    while lot := list(itertools.islice(iterator, _BATCH_SHARDS)):
        columns = [[getattr(shard, name) for shard in lot] for name in _SHARD_SCHEMA.names]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _SHARD_SCHEMA, strict=True)]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=_SHARD_SCHEMA))
    return pa.Table.from_batches(batches, _SHARD_SCHEMA)
