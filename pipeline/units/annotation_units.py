"""Annotation units: one for each token shard, a million of them as columns of about a hundred megabytes."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import pyarrow as pa

from logitcask.pipeline.units.token_units import unit_name
from logitcask.schemas.dataset.token_unit_record import TokenShard
from logitcask.schemas.format.metadata import Split

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


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationUnit:
    """A token shard that one worker annotates.

    Attributes:
        name: Name of the target shard to be written.
        tokens: The token shard to be read.
    """

    name: str
    tokens: TokenShard

    @property
    def split(self) -> Split:
        return self.tokens.split


def annotation_unit(shard: TokenShard, settings_fingerprint: str) -> AnnotationUnit:
    """A token shard's unit, named by the shard and the fingerprint of everything else that changes its targets."""
    position = shard.name.rpartition("-")[0]
    return AnnotationUnit(name=unit_name(position, [settings_fingerprint, shard.name]), tokens=shard)


class AnnotationUnitTable(Sequence[AnnotationUnit]):
    """One unit for each row of a `shard_table`, in its order; units are created on access.

    Args:
        shards: Token shards, as `shard_table` returns them.
        settings_fingerprint: Covers everything except the token shard that changes targets.
    """

    def __init__(self, shards: pa.Table, settings_fingerprint: str) -> None:
        self._shards = shards
        self._settings_fingerprint = settings_fingerprint

    def __len__(self) -> int:
        return self._shards.num_rows

    @overload
    def __getitem__(self, index: int) -> AnnotationUnit: ...
    @overload
    def __getitem__(self, index: slice) -> list[AnnotationUnit]: ...
    def __getitem__(self, index: int | slice) -> AnnotationUnit | list[AnnotationUnit]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            assert step == 1
            rows = self._shards.slice(start, stop - start).to_pylist()
            return [annotation_unit(TokenShard(**row), self._settings_fingerprint) for row in rows]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self[index : index + 1][0]

    def __iter__(self) -> Iterator[AnnotationUnit]:
        for block in self.blocks(_BATCH_SHARDS):
            yield from block

    def blocks(self, num_units: int) -> Iterator[list[AnnotationUnit]]:
        """The units in order, `num_units` at a time."""
        for start in range(0, len(self), num_units):
            yield self[start : start + num_units]


def shard_table(shards: Iterable[TokenShard]) -> pa.Table:
    """Token shards as columns; iterates once and holds at most `_BATCH_SHARDS` shards as objects."""
    iterator = iter(shards)
    batches = []
    while batch := list(itertools.islice(iterator, _BATCH_SHARDS)):
        columns = [[getattr(shard, name) for shard in batch] for name in _SHARD_SCHEMA.names]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _SHARD_SCHEMA, strict=True)]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=_SHARD_SCHEMA))
    return pa.Table.from_batches(batches, _SHARD_SCHEMA)
