"""Checks what a Parquet file declares against its bytes, before a library takes memory for it.

A page of 36 kB may declare a gigabyte, a few bytes of run lengths may declare a billion rows, and the Parquet library
believes both. So counts in the footer and sizes in page headers are compared with the bytes that exist. The bounds are
far above what real data compresses to, and low enough for a small machine.
"""

from collections.abc import Callable, Iterable

import pyarrow.parquet as pq

from logitcask.schemas.format.parquet.page_headers import COMPRESSED_SIZE, UNCOMPRESSED_SIZE, PageHeader

# Values of all lists of a column, or rows, that any file may have, and further ones for each of its bytes.
_FREE_VALUES, _VALUES_PER_BYTE = 1 << 22, 64
# Bytes that the pages of a column chunk may have, and further ones for each compressed byte.
_FREE_BYTES, _BYTES_PER_BYTE = 64 << 20, 64
_HEADER_BYTES, _MAX_HEADER_BYTES = 256, 1 << 20


def check_num_values(num_values: int, size_bytes: int, what: str) -> None:
    """Raises ValueError where a file of that size cannot hold that number of rows or values."""
    if not 0 <= num_values <= _FREE_VALUES + _VALUES_PER_BYTE * size_bytes:
        raise ValueError(f"{num_values:,} {what} in a file of {size_bytes:,} bytes")


def check_column_chunks(
    metadata: pq.FileMetaData,
    groups: Iterable[int],
    columns: Iterable[int],
    read_at: Callable[[int, int], bytes],
    size_bytes: int,
) -> None:
    """Checks the column chunks that are about to be read.

    Args:
        metadata: The footer.
        groups: Numbers of row groups.
        columns: Numbers of leaf columns.
        read_at: (offset, length) → bytes of the file.
        size_bytes: Length of the file.

    Raises:
        ValueError: A chunk lies outside the file, or declares more than its bytes can hold.
    """
    numbers = list(columns)
    for group in groups:
        row_group = metadata.row_group(group)
        for number in numbers:
            _check_chunk(row_group.column(number), read_at, size_bytes)


def _check_chunk(chunk: pq.ColumnChunkMetaData, read_at: Callable[[int, int], bytes], size_bytes: int) -> None:
    name = chunk.path_in_schema
    check_num_values(chunk.num_values, size_bytes, f"values of column {name!r}")
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    stop = start + chunk.total_compressed_size
    if not 4 <= start <= stop <= size_bytes:
        raise ValueError(f"column {name!r} lies outside the file")
    allowed_bytes = _FREE_BYTES + _BYTES_PER_BYTE * chunk.total_compressed_size
    while start < stop:
        length, uncompressed, compressed = _page_header(read_at, start, stop)
        start += length + compressed
        allowed_bytes -= uncompressed
        if uncompressed < 0 or compressed < 0 or start > stop or allowed_bytes < 0:
            raise ValueError(f"a page of column {name!r} declares {uncompressed:,} bytes, compressed {compressed:,}")


def _page_header(read_at: Callable[[int, int], bytes], start: int, stop: int) -> tuple[int, int, int]:
    """Length of a page's header, and bytes of the page: uncompressed and compressed."""
    length = _HEADER_BYTES
    while True:
        data = read_at(start, min(length, stop - start))
        try:
            header = PageHeader(data, 0)
            return header.end, header.numbers.get(UNCOMPRESSED_SIZE, -1), header.numbers.get(COMPRESSED_SIZE, -1)
        except ValueError:
            # Statistics make a header long.
            if len(data) == stop - start or length >= _MAX_HEADER_BYTES:
                raise
            length *= 16
