"""Opening corpus files: checks that they are unchanged, decompresses them, and detects truncation."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any, cast

import pyarrow as pa
import zstandard

from logitcask.pipeline.corpus.files import CorpusFile
from logitcask.pipeline.corpus.range_digest import WatchedReader
from logitcask.schemas import storage
from logitcask.schemas.errors import CorpusError

# Raised for a damaged compressed file. (BadGzipFile is an OSError; other OSErrors come from the store, not the file.)
CORRUPT_STREAM_ERRORS = (gzip.BadGzipFile, zlib.error, zstandard.ZstdError, EOFError)

_BUFFER_BYTES = 1 << 20
# Compressed bytes per read: a zstd block of 4 bytes can expand to 128 KiB, so a decompression bomb can put at most
# 128 MiB into memory at once.
_ZSTD_INPUT_BYTES = 4096
# `zstd --long=31` makes frames that need this much memory; the largest public dumps are such files.
_ZSTD_MAX_WINDOW_BYTES = 1 << 31


@contextmanager
def open_file(file: CorpusFile, start: int = 0) -> Iterator[io.BufferedReader]:
    """The file's contents, decompressed, as a buffered binary stream (seekable if the file is not compressed).

    Args:
        file: The file.
        start: Stored byte at which the stream starts; for a compressed file, where a frame or member starts.

    Raises:
        CorpusError: The file is missing or has changed since the job was resolved.
    """
    check_unchanged(file)
    with ExitStack() as stack:
        raw = stack.enter_context(cast(Any, storage.open_reader(file.url)))
        watched = WatchedReader(raw, file.size_bytes, file.reads)
        stored = cast(io.BufferedReader, io.BufferedReader(watched, _BUFFER_BYTES))
        stored.seek(start)
        if file.compression == "gzip":
            yield cast(io.BufferedReader, stack.enter_context(gzip.GzipFile(fileobj=stored)))
        elif file.compression == "zstd":
            yield io.BufferedReader(_ZstdReader(stored), _BUFFER_BYTES)
        else:
            yield stored


def check_unchanged(file: CorpusFile) -> None:
    """Checks that a file is there. Its time may change, because the digest covers what is read, but not its size.

    Raises:
        CorpusError: It is missing, or its size has changed, except for a .jsonl file that has grown at its end.
    """
    try:
        now = storage.describe_file(file.url)
    except FileNotFoundError as e:
        raise CorpusError(f"corpus file {file.redacted_url} was removed after the job started") from e
    if now.size_bytes < file.size_bytes or (now.size_bytes > file.size_bytes and file.format != "jsonl"):
        raise CorpusError(
            f"corpus file {file.redacted_url} changed after the job started: {file.size_bytes} bytes then, "
            f"{now.size_bytes} bytes now. Restore it, or annotate into a new output"
        )


class _ZstdReader(io.RawIOBase):
    """The decompressed frames of a zstd file, one after the other.

    `zstandard`'s own reader silently ends at the end of a truncated file; this one raises EOFError.
    """

    def __init__(self, stored: IO[bytes]) -> None:
        super().__init__()
        self._stored = stored
        self._frame: Any = None
        self._undecoded = b""
        self._decoded = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decoded:
            chunk = self._undecoded or self._stored.read(_ZSTD_INPUT_BYTES)
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
        """What a chunk adds, up to the end of a frame: if the next one is damaged, this is not lost."""
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW_BYTES).decompressobj()
        decoded = self._frame.decompress(chunk)
        self._undecoded = b""
        if self._frame.eof:
            self._undecoded = self._frame.unused_data
            self._frame = None
        return decoded


class CorruptFileError(Exception):
    """pyarrow could not read the file."""


@contextmanager
def arrow_errors() -> Iterator[None]:
    """Distinguishes damage from a failing store: an OSError of pyarrow itself has no errno."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as e:
        raise CorruptFileError(str(e)) from e
    except OSError as e:
        if e.errno is not None:
            raise
        raise CorruptFileError(str(e)) from e
