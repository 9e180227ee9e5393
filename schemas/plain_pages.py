"""The values of a list column taken straight from its page, where the page is laid out as our writer lays it out.

A Parquet decoder walks through one level for every list entry to find where rows begin. Two lists of equal shape
need that walk once: here `ids` is taken as the bytes that it is, and borrows the shape that was decoded for `q`. That
saves a third of the time of reading a shard.

Nothing is believed that is not checked. The page header must be, byte for byte, the one that follows from the footer
and from the page's own checksum; the levels must equal those of the other list. Any other layout, or a damaged file, is
left to the Parquet library, which reads or reports it.

Thrift's compact protocol and page version 1: https://github.com/apache/parquet-format
"""

import zlib
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq
import zstandard

ReadAt = Callable[[int, int], bytes]
"""(offset, length) → bytes of the file."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_LONGEST_HEADER = 128
# Zstandard decodes in blocks of this many bytes, which never take more when compressed.
_ZSTD_BLOCK = 1 << 17
# Numbers of Thrift's enumerations: of page types, and of encodings.
_DATA_PAGE = 0
_PLAIN, _RUN_LENGTH = 0, 3
_NO_STATISTICS = (b"\x1c\x00\x00\x00", b"\x00\x00")
"""How a data page header ends, with an empty statistics struct and without."""


def plain_list_values(
    read_at: ReadAt, column: pq.ColumnChunkMetaData, shape: pq.ColumnChunkMetaData, num_values: int
) -> np.ndarray | None:
    """The values of a list column of int32 in one row group, if its lists are as long as those of another column.

    Args:
        read_at: Reads the file.
        column: The chunk to take the values of.
        shape: The chunk of a list column that was decoded, its checksums verified.
        num_values: Entries of all of its lists together.

    Returns:
        int32 [num_values]; None where the chunk is laid out otherwise, or is not as it was written.
    """
    if not _is_one_plain_page(column) or column.num_values != shape.num_values:
        return None
    page = _decompressed_page(read_at, column)
    if page is None:
        return None
    num_level_bytes = len(page) - 4 * num_values
    if num_level_bytes < 0 or not _has_levels(read_at, shape, page[:num_level_bytes]):
        return None
    return np.frombuffer(page, "<i4", count=num_values, offset=num_level_bytes)


def _is_one_plain_page(column: pq.ColumnChunkMetaData) -> bool:
    return (
        column.compression == "ZSTD"
        and column.physical_type == "INT32"
        and set(column.encodings) == {"RLE", "PLAIN"}
        and not column.has_dictionary_page
    )


def _decompressed_page(read_at: ReadAt, column: pq.ColumnChunkMetaData) -> bytes | None:
    """Levels and values of the chunk's only page; None unless its header says what the footer and the bytes say."""
    chunk = read_at(column.data_page_offset, column.total_compressed_size)
    start = chunk.find(_ZSTD_MAGIC, 0, _LONGEST_HEADER)
    if start < 0:
        return None
    payload = memoryview(chunk)[start:]
    size = column.total_uncompressed_size - start
    begin = _page_header(size, len(payload), zlib.crc32(payload), column.num_values)
    if chunk[:start] not in [begin + end for end in _NO_STATISTICS]:
        return None
    try:
        page = zstandard.ZstdDecompressor().decompress(payload, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError:
        return None
    return page if len(page) == size else None


def _page_header(size: int, compressed_size: int, checksum: int, num_values: int) -> bytes:
    """Header of a PLAIN data page whose levels are run-length encoded, up to its statistics.

    A field is its type (5: integer, 12: struct) with 16 times the step from the last field's number, then its value.
    """
    signed_checksum = checksum - (checksum >> 31 << 32)
    page = (_DATA_PAGE, size, compressed_size, signed_checksum)
    data_page = (num_values, _PLAIN, _RUN_LENGTH, _RUN_LENGTH)
    first, second = (b"".join(b"\x15" + _varint(number) for number in numbers) for numbers in (page, data_page))
    return first + b"\x1c" + second


def _varint(number: int) -> bytes:
    """A 32-bit integer in zigzag order, seven bits a byte, the low ones first."""
    rest = (number << 1) ^ (number >> 31)
    digits = bytearray()
    while rest > 127:
        digits.append(rest & 127 | 128)
        rest >>= 7
    digits.append(rest)
    return bytes(digits)


def _has_levels(read_at: ReadAt, shape: pq.ColumnChunkMetaData, levels: bytes) -> bool:
    """Whether the page of the other column, which has been verified, begins with these levels."""
    # After the levels each page has values, which need not be looked at.
    wanted = (len(levels) // _ZSTD_BLOCK + 1) * (_ZSTD_BLOCK + 3) + _LONGEST_HEADER
    first_page = shape.dictionary_page_offset if shape.has_dictionary_page else shape.data_page_offset
    end = first_page + shape.total_compressed_size
    head = read_at(shape.data_page_offset, min(wanted, end - shape.data_page_offset))
    start = head.find(_ZSTD_MAGIC, 0, _LONGEST_HEADER)
    try:
        found = zstandard.ZstdDecompressor().stream_reader(head[max(start, 0) :]).read(len(levels))
    except zstandard.ZstdError:
        return False
    return start >= 0 and found == levels and _is_whole(levels)


def _is_whole(levels: bytes) -> bool:
    """Whether these are repetition levels and definition levels, each after its length, and no more."""
    end_of_first = 4 + int.from_bytes(levels[:4], "little")
    return len(levels) == end_of_first + 4 + int.from_bytes(levels[end_of_first : end_of_first + 4], "little")
