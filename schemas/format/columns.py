"""Columns of a shard as the arrays of `StoredTargets`."""

import re
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from logitcask.schemas.errors import VocabularyError
from logitcask.schemas.format import id_gaps, quantizer
from logitcask.schemas.format.id_gaps import from_gaps
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.ragged import Lists
from logitcask.schemas.format.scheme import Layout
from logitcask.schemas.format.targets import StoredTargets, TailSample, Targets, Windows

TOKEN_FIELDS = [
    pa.field("window", pa.int32(), nullable=False),
    pa.field("document", pa.int32(), nullable=False),
    pa.field("token", pa.int32(), nullable=False),
    pa.field("kind", pa.uint8(), nullable=False),
]


TARGET_FIELDS = [
    pa.field("ids", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),
    pa.field("q", pa.list_(pa.field("element", pa.uint8(), nullable=False)), nullable=False),
    pa.field("tail", pa.uint16()),
    pa.field("next_q", pa.uint16()),
]


GAPS_FIELD = pa.field("id_gaps", TARGET_FIELDS[0].type, nullable=False)


# The ids of heads, in one layout or the other.
ID_COLUMNS = (TARGET_FIELDS[0].name, GAPS_FIELD.name)


ENTROPY_FIELD = pa.field("entropy", pa.uint16())


_SAMPLE_TYPE = pa.list_(pa.field("element", pa.int32(), nullable=False))


def target_fields(layout: Layout) -> list[pa.Field]:
    """The columns that every target shard of a layout has."""
    return TARGET_FIELDS if layout == "plain" else [GAPS_FIELD, *TARGET_FIELDS[1:]]


def sample_column(replica: int) -> str:
    """Name of the column with a replica of the tail sample, from 0."""
    return f"tail_sample@{replica}" if replica else "tail_sample"


def tempered_tail_column(temperature: float) -> str:
    """Name of the column with the tail at a temperature other than 1."""
    return f"tail@{temperature:g}"


def token_table(windows: Windows, metadata: ShardMetadata) -> pa.Table:
    """The columns of tokens.

    Raises:
        VocabularyError: A token is negative or not below the vocabulary's size.
    """
    _check_ids("token", windows.token, metadata.vocab_size)
    return pa.Table.from_arrays(_token_columns(windows), schema=pa.schema(TOKEN_FIELDS))


def add_targets(
    tokens: pa.Table, targets: Targets, metadata: ShardMetadata, frequent_ids: np.ndarray | None = None
) -> pa.Table:
    """The columns of tokens and of their targets, quantised.

    Raises:
        VocabularyError: A head id is negative or not below the vocabulary's size.
    """
    _check_ids("head", targets.head_ids, metadata.vocab_size)
    columns = _head_columns(targets, metadata.vocab_size, frequent_ids)
    columns += [_tail_column(targets.log_tail), _nullable_nats(-targets.log_next)]
    fields = [*TOKEN_FIELDS, *target_fields(metadata.layout)]
    for field, column in _optional_columns(targets, metadata):
        fields.append(field)
        columns.append(column)
    return pa.Table.from_arrays([*tokens.columns, *columns], schema=pa.schema(fields))


def _check_ids(name: str, ids: np.ndarray, vocab_size: int) -> None:
    outside = np.flatnonzero((ids < 0) | (ids >= vocab_size))
    if len(outside):
        raise VocabularyError(
            f"{name} id {ids[outside[0]]} at entry {outside[0]} lies outside the vocabulary of {vocab_size} ids "
            f"({len(outside)} such ids); the tokenizer and the teacher do not belong together"
        )


def _token_columns(windows: Windows) -> list[pa.Array]:
    return [pa.array(column) for column in (windows.window_index(), windows.part, windows.token, windows.kind)]


def _head_columns(targets: Targets, vocab_size: int, frequent_ids: np.ndarray | None) -> list[pa.Array]:
    """Ids, or gaps where there is a list of frequent ids, and quantised log-probabilities."""
    ids, q = targets.head_ids, quantizer.quantize_head(targets.head_log_probs)
    if frequent_ids is not None:
        by_rank = id_gaps.ids_by_rank(frequent_ids, vocab_size)
        ids, q = id_gaps.to_gaps(ids, q, targets.head_offsets, by_rank)
    offsets = pa.array(targets.head_offsets.astype(np.int32))
    types = [field.type for field in TARGET_FIELDS[:2]]
    return [
        pa.ListArray.from_arrays(offsets, pa.array(values), type=type_)
        for values, type_ in zip((ids, q), types, strict=True)
    ]


def _optional_columns(targets: Targets, metadata: ShardMetadata) -> Iterator[tuple[pa.Field, pa.Array]]:
    if metadata.has_entropy:
        assert targets.entropy is not None, "the scorer gave no entropy"
        yield ENTROPY_FIELD, _nullable_nats(targets.entropy)
    for replica, sample in enumerate(targets.tail_samples):
        _check_ids(sample_column(replica), sample.ids, metadata.vocab_size)
        offsets = pa.array(sample.offsets.astype(np.int32))
        column = pa.ListArray.from_arrays(offsets, pa.array(sample.ids), type=_SAMPLE_TYPE)
        yield pa.field(sample_column(replica), _SAMPLE_TYPE, nullable=False), column
    for temperature, log_tail in sorted(targets.tempered_log_tails.items()):
        yield pa.field(tempered_tail_column(temperature), pa.uint16()), _tail_column(log_tail)


def _tail_column(log_tail: np.ndarray) -> pa.Array:
    steps = quantizer.quantize_tail(np.nan_to_num(log_tail, nan=0.0, neginf=-np.inf))
    return pa.array(steps, mask=np.isnan(log_tail))


def _nullable_nats(values: np.ndarray) -> pa.Array:
    return pa.array(quantizer.quantize_nats(values), mask=np.isnan(values))


_SAMPLE_COLUMN = re.compile(r"tail_sample(@[1-9]\d*)?")


_TAIL_COLUMN = re.compile(r"tail@(\d+(?:\.\d+)?)")


def is_known_option(column: str) -> bool:
    """Whether an optional column has a meaning in this version."""
    return column == ENTROPY_FIELD.name or bool(_SAMPLE_COLUMN.fullmatch(column) or _TAIL_COLUMN.fullmatch(column))


def stored_targets(table: pa.Table, lists: Mapping[str, Lists]) -> StoredTargets:
    """Targets of T rows.

    Args:
        table: The columns of single values.
        lists: The list columns by name; without ids these are empty.

    Raises:
        ValueError: A row has more ids than values, or less.
    """
    if "ids" in lists:
        _require_alike(lists, "ids", "q")
    replicas = sorted((name for name in lists if _SAMPLE_COLUMN.fullmatch(name)), key=_replica)
    samples = [lists[name] for name in replicas]
    tempered = {name: match[1] for name in table.column_names if (match := _TAIL_COLUMN.fullmatch(name))}
    return StoredTargets(
        head_ids=lists["ids"].values if "ids" in lists else np.zeros(0, np.int32),
        head_q=lists["q"].values,
        head_offsets=lists["q"].offsets,
        log_tail=_log_tail(table["tail"]),
        log_next=-_nats(table["next_q"]),
        entropy=_nats(table["entropy"]) if "entropy" in table.column_names else None,
        tail_samples=tuple(TailSample(ids=drawn.values, offsets=drawn.offsets) for drawn in samples),
        tempered_log_tails={float(number): _log_tail(table[name]) for name, number in tempered.items()},
    )


def decompacted(lists: Mapping[str, Lists], ids_by_rank: np.ndarray) -> dict[str, Lists]:
    """The lists of the layout "compact" as those of the plain one.

    Raises:
        ValueError: Gaps and values are not equally many, or a gap leads beyond the vocabulary.
    """
    _require_alike(lists, "id_gaps", "q")
    gaps, q = lists["id_gaps"], lists["q"]
    ids, values = from_gaps(gaps.values, q.values, q.offsets, ids_by_rank)
    return {**lists, "ids": Lists(values=ids, offsets=q.offsets), "q": Lists(values=values, offsets=q.offsets)}


def _require_alike(lists: Mapping[str, Lists], column: str, other: str) -> None:
    if not np.array_equal(lists[column].offsets, lists[other].offsets):
        raise ValueError(f"a row has more {column!r} than {other!r}, or less")


def _replica(column: str) -> int:
    return int(column.partition("@")[2] or 0)


def _log_tail(column: pa.ChunkedArray) -> np.ndarray:
    return quantizer.dequantize_tail(_steps(column))


def _nats(column: pa.ChunkedArray) -> np.ndarray:
    return quantizer.dequantize_nats(_steps(column))


def _steps(column: pa.ChunkedArray) -> np.ndarray:
    """Steps, exact in float32, NaN where null, [T]."""
    return column.combine_chunks().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
