"""The rules of FORMAT.md that a file breaks whatever its rows hold: types of columns, encodings, checksums of pages.

A reader refuses a column with another type, because its values would be read as something else. The other rules protect
readers of damaged files and other software, and `verify` names them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from logitcask.schemas.format.columns.heads import ID_GAPS
from logitcask.schemas.format.columns.registry import known_field
from logitcask.schemas.format.columns.single_values import stored_temperatures
from logitcask.schemas.format.parquet.page_headers import pages
from logitcask.schemas.format.parquet.row_groups import column_of

# What Parquet says of a type: the second name of int32 has the same meaning.
_CONVERTED_TYPES = {pa.int32(): ("NONE", "INT_32"), pa.uint8(): ("UINT_8",), pa.uint16(): ("UINT_16",)}


def check_columns(schema: pq.ParquetSchema, num_columns: int) -> None:
    """Checks the types of all columns that this version knows.

    Raises:
        ValueError: A column has another type than FORMAT.md says, or occurs twice.
    """
    leaves = [schema.column(index) for index in range(num_columns)]
    names = [column_of(leaf) for leaf in leaves]
    for name, count in Counter(names).items():
        if count > 1 and known_field(name) is not None:
            raise ValueError(f"column {name!r} occurs {count} times")
    for name, leaf in zip(names, leaves, strict=True):
        field = known_field(name)
        if field is not None and not _has_type(leaf, field):
            raise ValueError(f"column {name!r} is stored as {_description(leaf)}, not as {_expected(field)}")
    temperatures = stored_temperatures(names)
    if 1 in temperatures or len(set(temperatures)) < len(temperatures):
        raise ValueError(f"tails at the temperatures {temperatures}: each must be another number, and none of them 1")


def _has_type(leaf: pq.ColumnSchema, field: pa.Field) -> bool:
    is_list = pa.types.is_list(field.type)
    levels = (1, 1) if is_list else (0, int(field.nullable))
    value_type = field.type.value_type if is_list else field.type
    return (
        leaf.physical_type == "INT32"
        and leaf.converted_type in _CONVERTED_TYPES[value_type]
        and (leaf.max_repetition_level, leaf.max_definition_level) == levels
    )


def _description(leaf: pq.ColumnSchema) -> str:
    levels = f"repetition level {leaf.max_repetition_level}, definition level {leaf.max_definition_level}"
    return f"{leaf.physical_type} ({leaf.converted_type}; {levels})"


def _expected(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ', not null'}"


def broken_file_rules(data: bytes, metadata: pq.FileMetaData) -> Iterator[str]:
    """The rules about encodings and pages that a file breaks.

    Args:
        data: The whole file.
        metadata: Its footer.
    """
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(index)
            where = f"column {chunk.path_in_schema!r}, row group {group}"
            is_of_gaps = chunk.path_in_schema.partition(".")[0] == ID_GAPS
            if "BYTE_STREAM_SPLIT" in chunk.encodings and chunk.physical_type == "INT32" and not is_of_gaps:
                yield f"{where}: BYTE_STREAM_SPLIT, which other software cannot read"
            yield from (f"{where}: {fault}" for fault in _page_faults(data, chunk))


def _page_faults(data: bytes, chunk: pq.ColumnChunkMetaData) -> Sequence[str]:
    start = chunk.data_page_offset
    if chunk.dictionary_page_offset is not None:
        start = min(start, chunk.dictionary_page_offset)
    try:
        unprotected = [
            page for page in pages(data[start : start + chunk.total_compressed_size]) if not page.has_checksum
        ]
    except ValueError as error:
        return [str(error)]
    return [f"{len(unprotected)} pages without a checksum"] if unprotected else []
