"""A shard without what rules leave out, as a shard of its own: what `compact` writes.

Stored columns are filtered as they are and never decoded, since decoding divides by the row's sum and would not give
the same bytes again. So a reader finds exactly what the rules showed it before.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas import shard
from schemas.offsets import offsets_from_lengths
from schemas.reader import ShardReader
from schemas.rules import Rules
from schemas.selection import Choice, choose, keep_windows
from schemas.shard import EncodedShard

_TOKEN_COLUMNS = [field.name for field in shard.TOKEN_FIELDS]


def rewrite_shard(reader: ShardReader, data: bytes, rules: Rules) -> EncodedShard:
    """What the rules leave of a target shard; the same bytes where they leave everything.

    Args:
        reader: The shard.
        data: The whole file, its digest checked.
        rules: What to leave out.

    Raises:
        CorruptShardError: A page is not as it was written.
    """
    block = reader.read()
    assert block.targets is not None, "target shards only"
    choice = choose(block.windows, block.targets, rules)
    windows = keep_windows(block.windows, choice)
    stored = pq.read_table(pa.BufferReader(data), page_checksum_verification=True, use_threads=False)
    columns: list[pa.Array] = list(map(pa.array, (windows.window_index(), windows.part, windows.token, windows.kind)))
    fields = list(shard.TOKEN_FIELDS)
    for field in stored.schema:
        if field.name not in _TOKEN_COLUMNS:
            fields.append(_plain(field))
            columns.append(_keep(stored[field.name].combine_chunks(), fields[-1].type, choice))
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    return shard.encode_table(table, windows, reader.metadata, frequent_ids=reader.frequent_ids)


def _plain(field: pa.Field) -> pa.Field:
    """The field without what reading a file noted in it."""
    type_ = field.type
    if pa.types.is_list(type_):
        type_ = pa.list_(type_.value_field.remove_metadata())
    return pa.field(field.name, type_, nullable=field.nullable)


def _keep(column: pa.Array, type_: pa.DataType, choice: Choice) -> pa.Array:
    """The rows that stay; of those without a target any more an empty list, or null."""
    if pa.types.is_list(type_):
        return _keep_lists(column, type_, choice)
    values = column.fill_null(0).to_numpy()
    is_null = column.is_null().to_numpy(zero_copy_only=False) | choice.silenced
    return pa.array(values[choice.rows], type_, mask=is_null[choice.rows])


def _keep_lists(column: pa.ListArray, type_: pa.DataType, choice: Choice) -> pa.Array:
    widths = np.diff(column.offsets.to_numpy())
    entries = column.flatten().to_numpy()[np.repeat(choice.rows & ~choice.silenced, widths)]
    kept = np.where(choice.silenced, 0, widths)[choice.rows]
    offsets = offsets_from_lengths(kept).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(entries), type=type_)
