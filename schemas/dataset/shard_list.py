"""Reads the list of shards of a snapshot, a Parquet file, with bounded memory whatever it declares."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from logitcask.schemas.checked_json import InvalidValueError
from logitcask.schemas.format.parquet.page_sizes import check_column_chunks

# Rows that are parsed at a time.
_BATCH_ROWS = 5_000
# A row has two digests, which do not compress; a list of few rows may hold equal ones.
_FREE_ROWS, _BYTES_PER_ROW = 10_000, 16
_MAX_TEXT_BYTES = 1024
_REQUIRED = ("name", "split", "path", "num_windows", "num_positions", "size_bytes", "digest", "footer_digest")
_OPTIONAL = "selection"


def read_rows(data: bytes, num_rows: int) -> Iterator[list[dict[str, Any]]]:
    """The rows of a list, some at a time, as Python values.

    Args:
        data: The file.
        num_rows: How many rows the snapshot says it has.

    Raises:
        InvalidValueError: It has another number of rows, lacks a column, or declares more than its bytes can hold.
        pyarrow.ArrowException, OSError: It is damaged.
    """
    # A text of a megabyte in a million rows is one entry of a dictionary.
    metadata = pq.read_metadata(io.BytesIO(data))
    names = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise InvalidValueError(f"no column {missing[0]!r}")
    if metadata.num_rows != num_rows or num_rows > _FREE_ROWS + len(data) // _BYTES_PER_ROW:
        raise InvalidValueError(f"{metadata.num_rows:,} rows in {len(data):,} bytes, the snapshot says {num_rows:,}")
    columns = [name for name in (*_REQUIRED, _OPTIONAL) if name in names]
    texts = [name for name in columns if metadata.schema.column(names.index(name)).physical_type == "BYTE_ARRAY"]
    numbers = [names.index(name) for name in columns]
    try:
        check_column_chunks(
            metadata, range(metadata.num_row_groups), numbers, lambda at, length: data[at : at + length], len(data)
        )
    except ValueError as error:
        raise InvalidValueError(str(error)) from error
    # Not `read_table`: it imports pandas and pyarrow.dataset, whose threads sometimes abort a process at exit.
    file = pq.ParquetFile(io.BytesIO(data), read_dictionary=texts)
    for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
        values = [_values(name, batch[name]) for name in columns]
        yield [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _values(name: str, column: pa.Array) -> list[Any]:
    """The values of a column; half the time of `to_pylist`, where there are no nulls."""
    if not isinstance(column, pa.DictionaryArray):
        return column.to_pylist() if column.null_count else column.to_numpy(zero_copy_only=False).tolist()
    offsets = np.frombuffer(column.dictionary.buffers()[1], np.int32)
    longest = int(np.diff(offsets).max(initial=0))
    if longest > _MAX_TEXT_BYTES:
        raise InvalidValueError(f"a text of {longest:,} bytes in column {name!r}")
    return column.dictionary_decode().to_numpy(zero_copy_only=False).tolist()
