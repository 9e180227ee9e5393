"""A .json file has records one after the other, or one array of them; each element is a record.

The file is read in pieces, so that memory holds one record. Where a record is damaged, the next one cannot be found,
and the rest of the file is one rejection. A file with a record on each line is read like a .jsonl file instead.
"""

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from logitcask.pipeline.corpus.documents import Place, RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields, document_from_record
from logitcask.pipeline.corpus.files import FileSlice
from logitcask.pipeline.corpus.jsonl import read_jsonl
from logitcask.pipeline.corpus.streams import CORRUPT_STREAM_ERRORS, open_file

_READ_BYTES = 1 << 20
_BETWEEN = re.compile(r"[\s,\ufeff]*")


class _DamagedError(Exception):
    """The text is not a sequence of JSON values."""


def read_json(piece: FileSlice, fields: Fields) -> Iterator[RawDocument | Rejected]:
    """The documents of the whole file."""
    with open_file(piece.file) as stream:
        try:
            is_lines = _has_a_record_on_each_line(stream.peek(_READ_BYTES))
        except CORRUPT_STREAM_ERRORS:
            is_lines = True
        if not is_lines:
            yield from _read_values(stream, piece, fields)
            return
    yield from read_jsonl(piece, fields)


def _has_a_record_on_each_line(start: bytes) -> bool:
    first = start.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")[0]
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _read_values(stream: io.BufferedReader, piece: FileSlice, fields: Fields) -> Iterator[RawDocument | Rejected]:
    file, row = piece.file, 0
    try:
        for row, (record, text) in enumerate(_values(stream, fields.document_bytes), start=1):
            place = Place(file_name=file.name, url=file.redacted_url, row=row, offset_bytes=None)
            yield document_from_record(record, fields, place, text.encode(errors="surrogateescape"))
    except (*CORRUPT_STREAM_ERRORS, _DamagedError, RecursionError) as e:
        place = Place(file_name=file.name, url=file.redacted_url, row=row + 1, offset_bytes=None)
        kind = "malformed_json" if isinstance(e, _DamagedError | RecursionError) else "corrupt_stream"
        yield Rejected(place=place, reason=kind, detail=f"{e}; the rest of the file was not read")


def _values(stream: io.BufferedReader, limit_bytes: int) -> Iterator[tuple[Any, str]]:
    """Each record and its text. Bytes that are not UTF-8 become unpaired surrogates: they cost one document."""
    decode = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape").decode
    parse = json.JSONDecoder().raw_decode
    buffer, is_end, in_array = "", False, False
    read_bytes = _READ_BYTES
    while True:
        buffer = buffer[_end_of(_BETWEEN, buffer) :]
        if buffer.startswith("[") and not in_array:
            in_array, buffer = True, buffer[1:]
            continue
        if in_array and buffer.startswith("]"):
            in_array, buffer = False, buffer[1:]
            continue
        try:
            value, stop = parse(buffer)
            # A number at the end of what was read may have more digits.
            is_whole = stop < len(buffer) or is_end
        except ValueError as e:
            if is_end and not buffer:
                if in_array:
                    raise _DamagedError("the array has no end") from e
                return
            if is_end or len(buffer) > limit_bytes:
                raise _DamagedError(f"not JSON: {e}") from e
            is_whole, value, stop = False, None, 0
        if is_whole:
            yield value, buffer[:stop]
            buffer, read_bytes = buffer[stop:], _READ_BYTES
            continue
        data = stream.read(read_bytes)
        # Twice as much each time: a record is then parsed a few times, whatever its length.
        read_bytes *= 2
        is_end = not data
        buffer += decode(data, final=is_end)


def _end_of(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.match(text)
    return found.end() if found else 0
