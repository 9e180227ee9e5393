"""All target columns, in their order in the file, and what a reader and a writer do with all of them.

A new optional column is one class, one row of `TARGET_COLUMNS`, the field of `schemas.format.targets.TargetRows` that
holds its values, and FORMAT.md.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from logitcask.schemas.format.columns.family import StoredColumns, TargetColumns, list_column
from logitcask.schemas.format.columns.heads import HeadColumns
from logitcask.schemas.format.columns.single_values import (
    EntropyColumn,
    NextTokenColumn,
    TailColumn,
    TemperedTailColumns,
)
from logitcask.schemas.format.columns.tail_samples import TailSampleColumns
from logitcask.schemas.format.columns.tokens import TOKEN_COLUMNS, TOKEN_FIELDS, broken_token_rules
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.ragged import filter_lists
from logitcask.schemas.format.targets import StoredTargets, TargetRows, Targets, Windows

TARGET_COLUMNS: tuple[TargetColumns, ...] = (
    HeadColumns(),
    TailColumn(),
    NextTokenColumn(),
    EntropyColumn(),
    TailSampleColumns(),
    TemperedTailColumns(),
)


def required_columns(metadata: ShardMetadata) -> list[str]:
    """Names of the columns that a shard with this metadata must have."""
    if metadata.kind == "tokens":
        return list(TOKEN_COLUMNS)
    return [*TOKEN_COLUMNS, *(name for columns in TARGET_COLUMNS for name in columns.required(metadata))]


def is_optional(column: str) -> bool:
    """Whether a column is an optional one that this version knows."""
    return any(columns.is_optional and columns.owns(column) for columns in TARGET_COLUMNS)


def known_field(column: str) -> pa.Field | None:
    """Name, type and nullability of a column; None if this version does not know it."""
    if column in TOKEN_COLUMNS:
        return TOKEN_FIELDS[TOKEN_COLUMNS.index(column)]
    return next((columns.field(column) for columns in TARGET_COLUMNS if columns.owns(column)), None)


def encode_targets(
    tokens: pa.Table, targets: Targets, metadata: ShardMetadata, frequent_ids: np.ndarray | None = None
) -> pa.Table:
    """The token columns and the quantized columns of their targets.

    Raises:
        VocabularyError: An id is negative or not below the vocabulary's size.
    """
    fields, arrays = list(tokens.schema), list(tokens.columns)
    for columns in TARGET_COLUMNS:
        for field, array in columns.encode(targets, metadata, frequent_ids):
            fields.append(field)
            arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def decode_targets(stored: StoredColumns) -> StoredTargets:
    """The targets of T rows, as they are stored.

    Raises:
        ValueError: The columns contradict each other.
    """
    return StoredTargets(
        **{name: value for columns in TARGET_COLUMNS for name, value in columns.decode(stored).items()}
    )


def broken_rules(windows: Windows, targets: TargetRows | None, metadata: ShardMetadata) -> Iterator[tuple[str, int]]:
    """The rules of FORMAT.md that rows break, each with the first such row."""
    rules = [*broken_token_rules(windows, metadata)]
    if targets is not None:
        rules += [rule for columns in TARGET_COLUMNS for rule in columns.broken_rules(windows, targets, metadata)]
    return ((rule, int(rows[0])) for rule, rows in rules if len(rows))


def filter_rows(table: pa.Table, tokens: pa.Table, kept: np.ndarray, silenced: np.ndarray) -> pa.Table:
    """Some rows of a stored target shard, and some of these without their targets; values are never decoded.

    Args:
        table: All columns of T rows, as read from a file.
        tokens: The token columns of the kept rows.
        kept: Which rows to keep, bool [T].
        silenced: Which rows lose their target, bool [T].
    """
    fields, arrays = list(tokens.schema), list(tokens.columns)
    for field in table.schema:
        if field.name not in TOKEN_COLUMNS:
            column, is_list = table[field.name].combine_chunks(), pa.types.is_list(field.type)
            # A field read from a file carries metadata of the file.
            type_ = pa.list_(field.type.value_field.remove_metadata()) if is_list else field.type
            fields.append(pa.field(field.name, type_, nullable=field.nullable))
            arrays.append((_filter_lists if is_list else _filter_values)(column, type_, kept, silenced))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _filter_values(column: pa.Array, type_: pa.DataType, kept: np.ndarray, silenced: np.ndarray) -> pa.Array:
    is_null = column.is_null().to_numpy(zero_copy_only=False) | silenced
    return pa.array(column.fill_null(0).to_numpy()[kept], type_, mask=is_null[kept])


def _filter_lists(column: pa.ListArray, type_: pa.DataType, kept: np.ndarray, silenced: np.ndarray) -> pa.Array:
    entries, offsets = filter_lists(column.offsets.to_numpy(), kept, silenced)
    return list_column(column.flatten().to_numpy()[entries], offsets, type_)
