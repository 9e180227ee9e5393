"""A .parquet file has one record in each row; large files are read by row groups."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from logitcask.pipeline.corpus.documents import Place, RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields, document_from_record
from logitcask.pipeline.corpus.files import CorpusFile, FileSlice
from logitcask.pipeline.corpus.streams import open_file

# Rows turned into Python objects at a time.
_BATCH_ROWS = 256


class _CorruptFileError(Exception):
    """pyarrow could not read the file."""


def row_group_bytes(file: CorpusFile) -> tuple[int, ...]:
    """Stored bytes of each row group; empty if the file cannot be read at all."""
    try:
        with _open(file) as parquet:
            metadata = parquet.metadata
            groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            return tuple(
                sum(group.column(column).total_compressed_size for column in range(group.num_columns))
                for group in groups
            )
    except _CorruptFileError:
        return ()


def row_group_range(piece: FileSlice) -> tuple[int, int]:
    """First stored byte of a slice of row groups, and one past its last; the slices of a file cover all its bytes."""
    try:
        with _open(piece.file) as parquet:
            bounds = [_first_byte(parquet.metadata.row_group(index)) for index in range(parquet.num_row_groups)]
    except _CorruptFileError:
        return 0, piece.file.size_bytes
    return (
        bounds[piece.start] if piece.start else 0,
        bounds[piece.stop] if piece.stop < len(bounds) else piece.file.size_bytes,
    )


def _first_byte(group: pq.RowGroupMetaData) -> int:
    columns = [group.column(index) for index in range(group.num_columns)]
    return min(min(one.data_page_offset, one.dictionary_page_offset or one.data_page_offset) for one in columns)


def read_parquet(piece: FileSlice, fields: Fields) -> Iterator[RawDocument | Rejected]:
    """The documents of a slice of row groups.

    The rows of a row group before the damage are kept; the rest of the group is one rejection.
    """
    try:
        with _open(piece.file) as parquet:
            columns = [name for name in (fields.required, fields.id) if name in parquet.schema_arrow.names]
            first_row = sum(parquet.metadata.row_group(index).num_rows for index in range(piece.start))
            for index in range(piece.start, min(piece.stop, parquet.num_row_groups)):
                yield from _read_row_group(parquet, index, columns, piece.file, first_row, fields)
                first_row += parquet.metadata.row_group(index).num_rows
    except _CorruptFileError as e:
        yield Rejected(place=_place(piece.file, 1), reason="corrupt_stream", detail=f"parquet: {e}")


def _read_row_group(
    parquet: pq.ParquetFile, index: int, columns: list[str], file: CorpusFile, first_row: int, fields: Fields
) -> Iterator[RawDocument | Rejected]:
    row = first_row
    try:
        for record in _records(parquet, index, columns):
            row += 1
            raw = json.dumps(record, ensure_ascii=False, default=str).encode(errors="surrogatepass")
            yield document_from_record(record, fields, _place(file, row), raw)
    except _CorruptFileError as e:
        detail = f"parquet: row group {index}: {e}; the rest of the row group was not read"
        yield Rejected(place=_place(file, row + 1), reason="corrupt_stream", detail=detail)


def _records(parquet: pq.ParquetFile, index: int, columns: list[str]) -> Iterator[dict]:
    if not columns:
        # pyarrow reads no rows if no column is requested.
        yield from ({} for _ in range(parquet.metadata.row_group(index).num_rows))
        return
    with _arrow_errors():
        batches = iter(parquet.iter_batches(_BATCH_ROWS, row_groups=[index], columns=columns, use_threads=False))
    while True:
        with _arrow_errors():
            batch = next(batches, None)
            records = [] if batch is None else batch.to_pylist()
        if batch is None:
            return
        yield from records


def _place(file: CorpusFile, row: int) -> Place:
    return Place(file_name=file.name, url=file.redacted_url, row=row, offset_bytes=None)


@contextmanager
def _open(file: CorpusFile) -> Iterator[pq.ParquetFile]:
    with open_file(file) as stream:
        with _arrow_errors():
            parquet = pq.ParquetFile(stream, page_checksum_verification=True)
        yield parquet


@contextmanager
def _arrow_errors() -> Iterator[None]:
    """Distinguishes damage from a failing store: an OSError of pyarrow itself has no errno."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as e:
        raise _CorruptFileError(str(e)) from e
    except OSError as e:
        if e.errno is not None:
            raise
        raise _CorruptFileError(str(e)) from e
