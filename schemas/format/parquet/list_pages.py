"""Reads lists directly from their pages, if the pages have the layout that our writer produces.

To find where lists begin, a Parquet decoder visits one level for every entry, and it expands one-byte values to four
bytes. Both can be avoided: lists of equal length need no visit, and of two columns with the same list lengths only one
needs it, the one that the library decoded. Values are then taken as stored.

Everything is checked. A page header must equal, byte for byte, the header that follows from the footer and the page's
checksum; the numbers of levels and values must be those of the header. The Parquet library reads any other layout, and
reports damage.

Thrift's compact protocol and page version 1: https://github.com/apache/parquet-format
"""

import zlib
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq
import zstandard

from logitcask.schemas.format.parquet.run_lengths import all_ones, begins_at_every, whole_bytes
from logitcask.schemas.format.ragged import Lists

ReadAt = Callable[[int, int], bytes]
"""(offset, length) → bytes of the file."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_HEADER_BYTES = 128
# Zstandard decodes in blocks of this many bytes; a compressed block is never larger.
_ZSTD_BLOCK = 1 << 17
# Thrift enumeration values of page types and of encodings.
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_PLAIN, _RUN_LENGTH, _DICTIONARY = 0, 3, 8
# End of a data page header: with an empty statistics struct, and without one.
_NO_STATISTICS = (b"\x1c\x00\x00\x00", b"\x00\x00")
# End of a dictionary page header.
_NOT_SORTED = b"\x12\x00\x00"
_MAX_DICTIONARY_BYTES = 4 * 256


class ListPages:
    """The list columns of one file, a row group at a time.

    Args:
        read_at: Reads the file.
    """

    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._zstd = zstandard.ZstdDecompressor()
        # Of the last lists that were read; the next column mostly has the same list lengths.
        self._num_values, self._levels, self._offsets = 0, b"", np.zeros(1, np.int64)

    def read(self, chunk: pq.ColumnChunkMetaData, schema: pq.ColumnSchema, num_rows: int) -> Lists | None:
        """The lists of one column in one row group.

        Returns:
            Lists of int32, or of uint8 if that is the logical type. None if the lists neither have one length nor the
            lengths of the last lists, or if the chunk has another layout or is damaged.
        """
        if not _is_ours(chunk, schema) or not self._may_be_known(chunk.num_values, num_rows):
            return None
        try:
            return self._bytes(chunk, num_rows) if chunk.has_dictionary_page else self._integers(chunk, num_rows)
        except (zstandard.ZstdError, ValueError, IndexError):
            return None

    def remember(self, chunk: pq.ColumnChunkMetaData, schema: pq.ColumnSchema, offsets: np.ndarray) -> None:
        """Keeps the levels of a column chunk that the library decoded and whose checksums it verified.

        Args:
            chunk: The chunk.
            schema: Of its column.
            offsets: Offsets of the decoded lists, int64 [T + 1].
        """
        if not _is_ours(chunk, schema):
            return
        page_bytes = _first_byte(chunk) + chunk.total_compressed_size - chunk.data_page_offset
        # Two levels of one bit take a quarter of a byte; the values after them are not needed.
        num_blocks = chunk.num_values // 4 // _ZSTD_BLOCK + 2
        data = self._read_at(chunk.data_page_offset, min(page_bytes, num_blocks * (_ZSTD_BLOCK + 3)))
        try:
            page = self._zstd.stream_reader(_split(memoryview(data))[1])
            levels = b""
            for _ in range(2):
                length = page.read(4)
                levels += length + page.read(int.from_bytes(length, "little"))
        except (zstandard.ZstdError, ValueError):
            return
        self._num_values, self._levels, self._offsets = chunk.num_values, levels, offsets

    def _may_be_known(self, num_values: int, num_rows: int) -> bool:
        if num_rows == 0:
            return False
        return num_values % num_rows == 0 or (num_values, num_rows) == (self._num_values, len(self._offsets) - 1)

    def _integers(self, chunk: pq.ColumnChunkMetaData, num_rows: int) -> Lists:
        if set(chunk.encodings) != {"RLE", "PLAIN"}:
            raise ValueError("not one plain page")
        data = memoryview(self._read_at(chunk.data_page_offset, chunk.total_compressed_size))
        page = self._data_page(data, chunk.total_uncompressed_size, chunk.num_values, _PLAIN)
        offsets, start = self._row_offsets(page, chunk.num_values, num_rows)
        values = page[start:].view("<i4")
        if len(values) != offsets[-1]:
            raise ValueError(f"{len(values)} values in lists of {offsets[-1]}")
        return Lists(values=np.require(values, requirements="A"), offsets=offsets)

    def _bytes(self, chunk: pq.ColumnChunkMetaData, num_rows: int) -> Lists:
        data = memoryview(self._read_at(_first_byte(chunk), chunk.total_compressed_size))
        page_at = chunk.data_page_offset - _first_byte(chunk)
        dictionary, used = self._dictionary(data[:page_at])
        page = self._data_page(data[page_at:], chunk.total_uncompressed_size - used, chunk.num_values, _DICTIONARY)
        offsets, start = self._row_offsets(page, chunk.num_values, num_rows)
        if page[start] != 8:
            raise ValueError("indices that are not whole bytes")
        return Lists(values=dictionary.take(whole_bytes(page[start + 1 :], int(offsets[-1]))), offsets=offsets)

    def _dictionary(self, data: memoryview) -> tuple[np.ndarray, int]:
        """Values of a dictionary page, uint8, and the uncompressed bytes of its header and page."""
        header, payload = _split(data)
        size = zstandard.frame_content_size(payload)
        expected = _page_start(_DICTIONARY_PAGE, size, payload) + b"\x3c" + _numbers(size // 4, _PLAIN) + _NOT_SORTED
        if header != expected or size > _MAX_DICTIONARY_BYTES:
            raise ValueError("not a dictionary page of bytes")
        values = np.frombuffer(self._zstd.decompress(payload), "<i4")
        if ((values < 0) | (values > 255)).any():
            raise ValueError("a byte above 255")
        return values.astype(np.uint8), len(header) + size

    def _data_page(self, data: memoryview, uncompressed_bytes: int, num_values: int, encoding: int) -> np.ndarray:
        """Levels and values of a chunk's only page, uint8; its header must agree with the footer and the bytes."""
        header, payload = _split(data)
        size = uncompressed_bytes - len(header)
        begin = _page_start(_DATA_PAGE, size, payload) + b"\x1c"
        begin += _numbers(num_values, encoding, _RUN_LENGTH, _RUN_LENGTH)
        if header not in [begin + end for end in _NO_STATISTICS]:
            raise ValueError("not a page header that follows from the footer")
        return self._decompressed(payload, size)

    def _decompressed(self, payload: memoryview, size: int) -> np.ndarray:
        # Values follow the levels. They are aligned if these levels have as many bytes as the last ones.
        gap = -len(self._levels) % 4
        page = np.empty(gap + size, np.uint8)[gap:]
        with self._zstd.stream_reader(payload) as source:
            if source.readinto(page.data) != size or source.read(1):
                raise ValueError("a page of another size than its header states")
        return page

    def _row_offsets(self, page: np.ndarray, num_values: int, num_rows: int) -> tuple[np.ndarray, int]:
        """Offsets of the lists whose levels begin a page, and the index at which its values begin."""
        end_of_first = 4 + int.from_bytes(page[:4], "little")
        start = end_of_first + 4 + int.from_bytes(page[end_of_first : end_of_first + 4], "little")
        levels = page[:start].tobytes()
        if (levels, num_values, num_rows + 1) != (self._levels, self._num_values, len(self._offsets)):
            repetition, definition = levels[4:end_of_first], levels[end_of_first + 4 :]
            length, rest = divmod(num_values, num_rows)
            if rest or not all_ones(definition, num_values) or not begins_at_every(repetition, length, num_rows):
                raise ValueError("lists of unknown lengths")
            self._num_values, self._levels, self._offsets = num_values, levels, np.arange(num_rows + 1) * length
        return self._offsets, start


def _is_ours(chunk: pq.ColumnChunkMetaData, schema: pq.ColumnSchema) -> bool:
    """Whether a chunk may hold lists of integers, or of bytes in a dictionary, all of them not null."""
    has_one_bit_levels = schema.max_repetition_level == schema.max_definition_level == 1
    has_type = schema.converted_type == "UINT_8" if chunk.has_dictionary_page else schema.converted_type == "NONE"
    return has_one_bit_levels and has_type and chunk.physical_type == "INT32" and chunk.compression == "ZSTD"


def _first_byte(chunk: pq.ColumnChunkMetaData) -> int:
    return (chunk.dictionary_page_offset or 0) if chunk.has_dictionary_page else chunk.data_page_offset


def _split(page: memoryview) -> tuple[bytes, memoryview]:
    """Header and compressed bytes."""
    start = bytes(page[:_MAX_HEADER_BYTES]).find(_ZSTD_MAGIC)
    if start < 0:
        raise ValueError("no Zstandard frame")
    return bytes(page[:start]), page[start:]


def _page_start(page_type: int, size: int, payload: memoryview) -> bytes:
    """The beginning of a page header: its type, both sizes, and the checksum."""
    checksum = zlib.crc32(payload)
    return _numbers(page_type, size, len(payload), checksum - (checksum >> 31 << 32))


def _numbers(*numbers: int) -> bytes:
    """Consecutive integer fields: each is its type (5, plus 16 for a field number one higher) and its value."""
    return b"".join(b"\x15" + _varint(number) for number in numbers)


def _varint(number: int) -> bytes:
    """A 32-bit integer in zigzag order, seven bits per byte, low bits first."""
    rest = (number << 1) ^ (number >> 31)
    digits = bytearray()
    while rest > 127:
        digits.append(rest & 127 | 128)
        rest >>= 7
    digits.append(rest)
    return bytes(digits)
