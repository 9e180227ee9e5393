"""A .jsonl file has one record on each line; large files are read in byte ranges."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from logitcask.pipeline.corpus.documents import Place, RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields, document_from_record, too_large
from logitcask.pipeline.corpus.files import CorpusFile, FileSlice
from logitcask.pipeline.corpus.streams import CORRUPT_STREAM_ERRORS, open_file

_SKIP_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """How much text the first stored bytes of a file hold.

    Attributes:
        num_rows, num_bytes: Its lines, also an unfinished last one, and its decompressed bytes.
        ends_line: Whether it ends with the end of a line.
        is_clean: Whether what follows it starts a line or ends one, and so leaves the lines before as they are.
    """

    num_rows: int
    num_bytes: int
    ends_line: bool
    is_clean: bool


def extent_of_start(file: CorpusFile, end: int) -> Extent:
    """What the stored bytes 0..end of a file hold; a compressed file must be divided into frames or members there."""
    num_newlines, num_bytes, last, following = 0, 0, b"", b""
    try:
        with open_file(replace(file, size_bytes=end)) as stream:
            while data := stream.read(_SKIP_BYTES):
                num_newlines += data.count(b"\n")
                num_bytes += len(data)
                last = data[-1:]
        with open_file(file, end) as stream:
            following = stream.read(1)
    except CORRUPT_STREAM_ERRORS:
        return Extent(num_rows=0, num_bytes=num_bytes, ends_line=False, is_clean=False)
    ends_line = last in (b"", b"\n")
    return Extent(
        num_rows=num_newlines + (not ends_line),
        num_bytes=num_bytes,
        ends_line=ends_line,
        is_clean=ends_line or following in (b"\n", b"\r"),
    )


def read_jsonl(piece: FileSlice, fields: Fields) -> Iterator[RawDocument | Rejected]:
    """The documents of the lines that start in the slice; blank lines are skipped.

    The lines before the damage of a compressed file are kept; the rest of the file is one rejection.
    """
    file = piece.file
    is_compressed = file.compression is not None
    row, offset = piece.rows_before, piece.text_before
    with open_file(file, piece.start if is_compressed else 0) as stream:
        try:
            offset += _skip_line(stream) if piece.is_continued else 0
            offset = offset if is_compressed else _first_line(stream, piece.start)
            while is_compressed or offset < piece.stop:
                line, length = _read_line(stream, fields.document_bytes)
                if not length:
                    return
                row += 1
                place = _place(piece, row, offset)
                offset += length
                if line is None:
                    yield too_large(fields, place, f"a line of {length} bytes")
                elif line.strip():
                    yield _parse(line, fields, place)
        except CORRUPT_STREAM_ERRORS as e:
            place = _place(piece, row + 1, offset)
            yield Rejected(
                place=place, reason="corrupt_stream", detail=f"{file.compression}: {e}; the rest was not read"
            )


def _place(piece: FileSlice, row: int, offset: int) -> Place:
    file = piece.file
    known_row = row if piece.is_whole else None
    return Place(file_name=file.name, url=file.redacted_url, row=known_row, offset_bytes=offset)


def _first_line(stream: io.BufferedReader, start: int) -> int:
    """Seeks the first line that starts at or after `start`; returns its offset."""
    if start == 0:
        return 0
    stream.seek(start - 1)
    return start - 1 + _skip_line(stream)


def _skip_line(stream: io.BufferedReader) -> int:
    """Reads to the end of the line in bounded memory; returns the number of bytes."""
    skipped = 0
    while piece := stream.readline(_SKIP_BYTES):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _read_line(stream: io.BufferedReader, limit: int) -> tuple[bytes | None, int]:
    """The next line and its length; the line is None if longer than `limit`, the length is 0 at the end of the file."""
    line = stream.readline(limit + 1)
    if len(line) <= limit or line.endswith(b"\n"):
        return line, len(line)
    return None, len(line) + _skip_line(stream)


def _parse(line: bytes, fields: Fields, place: Place) -> RawDocument | Rejected:
    raw = line.rstrip(b"\r\n")
    try:
        record = json.loads(raw.decode("utf-8-sig" if place.offset_bytes == 0 else "utf-8"))
    except UnicodeDecodeError as e:
        return Rejected(place=place, reason="undecodable", detail=f"not UTF-8: {e}", raw=raw)
    except (ValueError, RecursionError) as e:
        return Rejected(place=place, reason="malformed_json", detail=str(e), raw=raw)
    return document_from_record(record, fields, place, raw)
