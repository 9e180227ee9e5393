"""A .jsonl file has one record on each line; large files are read in byte ranges."""

import io
import json
from collections.abc import Iterator

from logitcask.pipeline.corpus.documents import Place, RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields, document_from_record, too_large
from logitcask.pipeline.corpus.files import FileSlice
from logitcask.pipeline.corpus.streams import CORRUPT_STREAM_ERRORS, open_file

_SKIP_BYTES = 1 << 20


def read_jsonl(piece: FileSlice, fields: Fields) -> Iterator[RawDocument | Rejected]:
    """The documents of the lines that start in the slice; blank lines are skipped.

    The lines before the damage of a compressed file are kept; the rest of the file is one rejection.
    """
    file = piece.file
    row, offset = 0, piece.start
    with open_file(file) as stream:
        try:
            offset = _first_line(stream, piece.start)
            while piece.is_whole or offset < piece.stop:
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
