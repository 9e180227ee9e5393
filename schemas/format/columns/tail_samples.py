"""Ids drawn from the tail: `tail_sample`, `tail_sample@1`, …, one list column for each replica."""

import re
from typing import Any

import numpy as np
import pyarrow as pa

from logitcask.schemas.format.columns.family import (
    BrokenRules,
    EncodedColumns,
    StoredColumns,
    TargetColumns,
    check_ids,
    list_column,
    list_type,
    outside_vocabulary,
)
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.targets import TailSample, TargetRows, Targets, Windows

_NAME = re.compile(r"tail_sample(?:@([1-9]\d*))?")
_TYPE = list_type(pa.int32())


def sample_columns(metadata: ShardMetadata) -> list[str]:
    """Names of all sample columns of a shard, by replica."""
    num_replicas = metadata.scheme.num_tail_samples if metadata.scheme else 0
    return [_column(replica) for replica in range(num_replicas)]


class TailSampleColumns(TargetColumns):
    """Tail samples. A reader may skip them, but a scheme that samples must store them."""

    is_optional = True

    def owns(self, column: str) -> bool:
        return _NAME.fullmatch(column) is not None

    def field(self, column: str) -> pa.Field:
        return pa.field(column, _TYPE, nullable=False)

    def required(self, metadata: ShardMetadata) -> list[str]:
        return sample_columns(metadata)

    def encode(self, targets: Targets, metadata: ShardMetadata, frequent_ids: np.ndarray | None) -> EncodedColumns:
        for replica, sample in enumerate(targets.tail_samples):
            check_ids(_column(replica), sample.ids, metadata.vocab_size)
            yield self.field(_column(replica)), list_column(sample.ids, sample.offsets, _TYPE)

    def decode(self, stored: StoredColumns) -> dict[str, Any]:
        replicas = {int(match[1] or 0): name for name in stored.lists if (match := _NAME.fullmatch(name))}
        samples = [stored.lists[replicas[replica]] for replica in sorted(replicas)]
        return {"tail_samples": tuple(TailSample(ids=drawn.values, offsets=drawn.offsets) for drawn in samples)}

    def broken_rules(self, windows: Windows, targets: TargetRows, metadata: ShardMetadata) -> BrokenRules:
        num_samples = len(sample_columns(metadata))
        if len(targets.tail_samples) != num_samples:
            yield f"{len(targets.tail_samples)} tail samples, but the scheme has {num_samples}", np.zeros(1, np.int64)
        for replica, sample in enumerate(targets.tail_samples):
            for rule, rows in _broken_rules(targets, sample, metadata.vocab_size):
                yield f"{_column(replica)}: {rule}", rows


def _column(replica: int) -> str:
    return f"tail_sample@{replica}" if replica else "tail_sample"


def _broken_rules(targets: TargetRows, sample: TailSample, vocab_size: int) -> BrokenRules:
    rows, widths = np.arange(targets.num_positions), np.diff(sample.offsets)
    drawn_row, head_row = np.repeat(rows, widths), np.repeat(rows, targets.head_widths())
    falls = (np.diff(sample.ids) < 0) & (np.diff(drawn_row) == 0)
    in_head = np.isin(_keys(drawn_row, sample.ids), _keys(head_row, targets.head_ids))
    has_tail = targets.has_target() & ~np.isneginf(targets.log_tail)
    yield "a drawn id is outside the vocabulary", drawn_row[outside_vocabulary(sample.ids, vocab_size)]
    yield "drawn ids do not ascend", drawn_row[1:][falls]
    yield "an id of the head was drawn from the tail", drawn_row[in_head]
    yield "a row without a tail has a tail sample", np.flatnonzero((widths > 0) & ~has_tail)
    yield "a row with a tail has no tail sample", np.flatnonzero((widths == 0) & has_tail)


def _keys(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """One integer for each (row, id), int64."""
    return rows << 32 | ids.astype(np.int64) & 0xFFFFFFFF
