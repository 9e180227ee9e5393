"""The digest of a range of a file's stored bytes, formed while a reader reads them."""

import io
from collections.abc import Iterator
from hashlib import blake2b
from typing import IO

from logitcask.schemas import storage

_CHUNK_BYTES = 8 << 20


class RangeDigest:
    """128 bits of BLAKE2b over the bytes first..end of a file.

    It takes bytes from a `WatchedReader`, as long as they come in order; `finish` reads those that were not read. So a
    reader that reads forward costs no further read, and one that seeks is correct too.
    """

    def __init__(self, first: int, end: int) -> None:
        self._hash = blake2b(digest_size=16)
        self._next, self._end = first, end

    def see(self, position: int, data: bytes | memoryview) -> None:
        """Takes bytes that were read at a position."""
        skipped = self._next - position
        if 0 <= skipped < len(data) and self._next < self._end:
            taken = memoryview(data)[skipped : self._end - position]
            self._hash.update(taken)
            self._next += len(taken)

    def finish(self, url: str) -> str:
        """The digest, as 32 hex digits.

        Raises:
            FileNotFoundError, StorageError: The rest of the range cannot be read.
        """
        while self._next < self._end:
            data = storage.read_bytes(url, self._next, min(self._end, self._next + _CHUNK_BYTES))
            if not data:
                break
            self.see(self._next, data)
        return self._hash.hexdigest()


def range_digest(url: str, first: int, end: int) -> str:
    """The digest of the bytes first..end of a file; of fewer bytes if the file ends before.

    Raises:
        FileNotFoundError, StorageError: The file cannot be read.
    """
    return RangeDigest(first, end).finish(url)


def read_range(url: str, first: int, end: int) -> Iterator[bytes]:
    """The bytes first..end of a file, in pieces."""
    for start in range(first, end, _CHUNK_BYTES):
        yield storage.read_bytes(url, start, min(end, start + _CHUNK_BYTES))


class WatchedReader(io.RawIOBase):
    """The first `size_bytes` of a stored file; shows a `RangeDigest` what is read.

    A file that has grown since the job was planned is read as it was then.
    """

    def __init__(self, stored: IO[bytes], size_bytes: int, reads: RangeDigest | None) -> None:
        super().__init__()
        self._stored, self._size_bytes, self._reads = stored, size_bytes, reads
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        self._position = self._stored.seek(base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        data = self._stored.read(max(0, min(len(buffer), self._size_bytes - self._position)))
        if self._reads is not None:
            self._reads.see(self._position, data)
        self._position += len(data)
        buffer[: len(data)] = data
        return len(data)
