"""Rows of an Arrow table as documents; a value that cannot be read costs its row."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from logitcask.pipeline.corpus.documents import Place, RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields, document_from_record, missing_field
from logitcask.pipeline.corpus.files import CorpusFile

# Rows turned into Python objects at a time.
BATCH_ROWS = 256


def wanted_columns(names: Sequence[str], fields: Fields) -> list[str]:
    """The columns of a table that are read."""
    return [name for name in (fields.required, fields.id) if name in names]


def documents_of_batch(
    batch: pa.RecordBatch, file: CorpusFile, first_row: int, fields: Fields
) -> Iterator[RawDocument | Rejected]:
    """The documents of a batch of wanted columns.

    Args:
        batch: Rows.
        file: Where they are.
        first_row: Rows of the file before them.
        fields: The fields that are read.
    """
    for row, record in enumerate(_records(batch), start=first_row + 1):
        place = row_place(file, row)
        if isinstance(record, UnicodeDecodeError):
            yield Rejected(place=place, reason="undecodable", detail=f"not UTF-8: {record}", raw=None)
            continue
        if fields.rich_messages and fields.chat in record:
            # All rows of a column have the same keys: those that a message does not have are null.
            record = {**record, fields.chat: _without_nulls(record[fields.chat])}
        raw = json.dumps(record, ensure_ascii=False, default=str).encode(errors="surrogatepass")
        yield document_from_record(record, fields, place, raw)


def rows_without_field(file: CorpusFile, rows: range, names: Sequence[str], fields: Fields) -> Iterator[Rejected]:
    """The rejections of rows of a table that lacks the required column."""
    return (missing_field(names, fields, row_place(file, row)) for row in rows)


def row_place(file: CorpusFile, row: int) -> Place:
    return Place(file_name=file.name, url=file.redacted_url, row=row, offset_bytes=None)


def _records(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    for start in range(0, batch.num_rows, BATCH_ROWS):
        part = batch.slice(start, BATCH_ROWS)
        try:
            records = part.to_pylist()
        except UnicodeDecodeError:
            records = [_record(part.slice(row, 1)) for row in range(part.num_rows)]
        yield from records


def _record(row: pa.RecordBatch) -> dict[str, Any] | UnicodeDecodeError:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
