"""Opening corpus files: unchanged since the plan, decompressed, with truncation noticed."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any, cast

import zstandard

from logitcask.pipeline.corpus.files import CorpusFile
from logitcask.schemas import storage
from logitcask.schemas.errors import CorpusError

# What a damaged compressed file raises. (BadGzipFile is an OSError; other OSErrors are the store's, not the file's.)
CORRUPT_STREAM_ERRORS = (gzip.BadGzipFile, zlib.error, zstandard.ZstdError, EOFError)

_BUFFER_BYTES = 1 << 20
# Compressed bytes taken at a time: a zstd block of 4 bytes can stand for 128 KiB, so this bounds what a
# decompression bomb can put into memory at once to 128 MiB.
_ZSTD_INPUT_BYTES = 4096


@contextmanager
def open_file(file: CorpusFile) -> Iterator[io.BufferedReader]:
    """The file's contents, decompressed, as a buffered binary stream (seekable if it is not compressed).

    Raises:
        CorpusError: The file is gone or is not the one that was planned.
    """
    check_unchanged(file)
    with ExitStack() as stack:
        stored = stack.enter_context(cast(Any, storage.open_reader(file.url)))
        if file.compression == "gzip":
            yield cast(io.BufferedReader, stack.enter_context(gzip.GzipFile(fileobj=stored)))
        elif file.compression == "zstd":
            yield io.BufferedReader(_ZstdReader(stored), _BUFFER_BYTES)
        else:
            yield io.BufferedReader(stored, _BUFFER_BYTES)


def check_unchanged(file: CorpusFile) -> None:
    """Raises CorpusError unless size and etag are those of the plan."""
    try:
        now = storage.describe_file(file.url)
    except FileNotFoundError as e:
        raise CorpusError(f"corpus file {file.redacted_url} was there when the job was planned and is gone") from e
    if (now.size_bytes, now.etag) != (file.size_bytes, file.etag):
        raise CorpusError(
            f"corpus file {file.redacted_url} changed after the job was planned: {file.size_bytes} bytes, "
            f"etag {file.etag!r} then; {now.size_bytes} bytes, etag {now.etag!r} now. Restore it, or annotate "
            "into a new output"
        )


class _ZstdReader(io.RawIOBase):
    """Decompressed frames of a zstd file, one after the other.

    `zstandard`'s own reader ends silently where a file is cut off; this one raises EOFError.
    """

    def __init__(self, stored: IO[bytes]) -> None:
        super().__init__()
        self._stored = stored
        self._frame: Any = None
        self._decoded = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decoded:
            chunk = self._stored.read(_ZSTD_INPUT_BYTES)
            if not chunk:
                if self._frame is not None:
                    raise EOFError("the file ends inside a zstd frame")
                return 0
            self._decoded = memoryview(self._decode(chunk))
        count = min(len(buffer), len(self._decoded))
        buffer[:count] = self._decoded[:count]
        self._decoded = self._decoded[count:]
        return count

    def _decode(self, chunk: bytes) -> bytes:
        decoded = []
        while chunk:
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            decoded.append(self._frame.decompress(chunk))
            chunk = b""
            if self._frame.eof:
                chunk = self._frame.unused_data
                self._frame = None
        return b"".join(decoded)
