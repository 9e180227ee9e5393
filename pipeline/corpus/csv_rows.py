"""A .csv or .tsv file has a header and then one record in each row, quoted as spreadsheets do (RFC 4180)."""

import csv
import io
from collections.abc import Iterator

from logitcask.pipeline.corpus.documents import Place, RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields, document_from_record
from logitcask.pipeline.corpus.files import FileSlice
from logitcask.pipeline.corpus.streams import CORRUPT_STREAM_ERRORS, open_file


def read_csv(piece: FileSlice, fields: Fields) -> Iterator[RawDocument | Rejected]:
    """The documents of the whole file; a row with more or fewer cells than the header is rejected."""
    file, row = piece.file, 0
    # The limit is one of the process, and the largest cell of this corpus.
    csv.field_size_limit(min(fields.document_bytes, 2**31 - 1))
    with open_file(file) as stream:
        # Bytes that are not UTF-8 become unpaired surrogates: they cost one document.
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            rows = csv.reader(_lines(text, fields.document_bytes), delimiter="\t" if file.format == "tsv" else ",")
            names = next(rows, [])
            for row, cells in enumerate(filter(None, rows), start=1):
                yield _document(names, cells, fields, _place(piece, row))
        except (*CORRUPT_STREAM_ERRORS, csv.Error) as e:
            kind = "malformed_csv" if isinstance(e, csv.Error) else "corrupt_stream"
            yield Rejected(place=_place(piece, row + 1), reason=kind, detail=f"{e}; the rest of the file was not read")
        finally:
            text.detach()


def _lines(text: io.TextIOWrapper, limit: int) -> Iterator[str]:
    """The lines of a text; csv.Error for one that is too long to be held in memory."""
    while line := text.readline(limit + 1):
        if len(line) > limit:
            raise csv.Error(f"a line longer than --document-bytes {limit}")
        yield line


def _document(names: list[str], cells: list[str], fields: Fields, place: Place) -> RawDocument | Rejected:
    raw = ",".join(cells).encode(errors="surrogateescape")
    if len(cells) != len(names):
        detail = f"{len(cells)} cells, but the header has {len(names)}; quote cells that contain the delimiter"
        return Rejected(place=place, reason="malformed_csv", detail=detail, raw=raw)
    return document_from_record(dict(zip(names, cells, strict=True)), fields, place, raw)


def _place(piece: FileSlice, row: int) -> Place:
    return Place(file_name=piece.file.name, url=piece.file.redacted_url, row=row, offset_bytes=None)
