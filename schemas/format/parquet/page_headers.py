"""The headers of all pages of a column chunk: how long each page is, and whether it has a checksum.

The Parquet library verifies checksums where they are present, and reports nothing where they are absent.

Thrift's compact protocol and `PageHeader`: https://github.com/apache/parquet-format
"""

from collections.abc import Iterator
from dataclasses import dataclass

# Field numbers of `PageHeader`.
UNCOMPRESSED_SIZE, COMPRESSED_SIZE, _CHECKSUM = 2, 3, 4
# Types of the compact protocol. Booleans are part of their field's type, but take a byte in a list.
_STOP, _BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = 0, (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
_MAX_DEPTH = 8
_MAX_VARINT_BITS = 70


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One page.

    Attributes:
        offset: Of its header in the chunk.
        has_checksum: Whether its header holds a checksum of its bytes.
    """

    offset: int
    has_checksum: bool


def pages(chunk: bytes) -> Iterator[Page]:
    """The pages of a column chunk, in order.

    Raises:
        ValueError: The bytes are not pages.
    """
    offset = 0
    while offset < len(chunk):
        header = PageHeader(chunk, offset)
        size = header.numbers.get(COMPRESSED_SIZE, -1)
        if size < 0 or header.end + size > len(chunk):
            raise ValueError(f"a page of {size} bytes at byte {offset} of a column chunk of {len(chunk)}")
        yield Page(offset=offset, has_checksum=_CHECKSUM in header.numbers)
        offset = header.end + size


class PageHeader:
    """A parsed header.

    Args:
        data: Bytes that hold it.
        start: Where it begins.

    Raises:
        ValueError: The bytes are not a header, or end before it does.

    Attributes:
        numbers: Its integer fields, by field number.
        end: Where it ends.
    """

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self.end = data, start
        self.numbers: dict[int, int] = {}
        try:
            self._struct(self.numbers, 0)
        except IndexError as error:
            raise ValueError(f"the page header at byte {start} of a column chunk does not end") from error

    def _struct(self, numbers: dict[int, int], depth: int) -> None:
        number = 0
        while (head := self._byte()) != _STOP:
            step, kind = head >> 4, head & 15
            number = number + step if step else self._zigzag()
            if kind in _INTEGERS:
                numbers[number] = self._zigzag()
            elif kind not in _BOOLEANS:
                self._skip(kind, depth)

    def _skip(self, kind: int, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError("a page header with too many levels")
        if kind == _BYTE or kind in _BOOLEANS:
            self._byte()
        elif kind in _INTEGERS:
            self._varint()
        elif kind == _DOUBLE:
            self.end += 8
        elif kind == _BINARY:
            length = self._varint()
            self.end += length
        elif kind in _LISTS:
            head = self._byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self._varint()):
                self._skip(head & 15, depth + 1)
                if self.end > len(self._data):
                    raise IndexError
        elif kind == _STRUCT:
            self._struct({}, depth + 1)
        else:
            raise ValueError(f"a page header with a field of type {kind}")

    def _byte(self) -> int:
        self.end += 1
        return self._data[self.end - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > _MAX_VARINT_BITS:
                raise ValueError("a page header with a number of too many bytes")
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
