"""An .arrow or .feather file (Arrow's IPC file or stream, as `datasets` writes it) has one record in each row."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from logitcask.pipeline.corpus.documents import RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields
from logitcask.pipeline.corpus.files import FileSlice
from logitcask.pipeline.corpus.record_batches import (
    documents_of_batch,
    row_place,
    rows_without_field,
    wanted_columns,
)
from logitcask.pipeline.corpus.streams import CorruptFileError, arrow_errors, open_file


def read_arrow(piece: FileSlice, fields: Fields) -> Iterator[RawDocument | Rejected]:
    """The documents of the whole file. The rows before damage are kept; the rest of the file is one rejection."""
    file, row = piece.file, 0
    with open_file(file) as stream:
        try:
            for batch in _batches(stream):
                names, columns = batch.schema.names, wanted_columns(batch.schema.names, fields)
                if fields.required in columns:
                    yield from documents_of_batch(batch.select(columns), file, row, fields)
                else:
                    yield from rows_without_field(file, range(row + 1, row + batch.num_rows + 1), names, fields)
                row += batch.num_rows
        except CorruptFileError as e:
            detail = f"arrow: {e}; the rest of the file was not read"
            yield Rejected(place=row_place(file, row + 1), reason="corrupt_stream", detail=detail)


def _batches(stream: Any) -> Iterator[pa.RecordBatch]:
    with arrow_errors():
        try:
            reader = pa.ipc.open_file(stream)
        except pa.ArrowInvalid:
            stream.seek(0)
            reader = pa.ipc.open_stream(stream)
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        for index in range(reader.num_record_batches):
            with arrow_errors():
                batch = reader.get_batch(index)
            yield batch
        return
    while True:
        with arrow_errors():
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
        yield batch
