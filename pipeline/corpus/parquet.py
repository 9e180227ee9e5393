"""A .parquet file has one record in each row; large files are read by row groups."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from logitcask.pipeline.corpus.documents import RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields
from logitcask.pipeline.corpus.files import CorpusFile, FileSlice
from logitcask.pipeline.corpus.record_batches import (
    BATCH_ROWS,
    documents_of_batch,
    row_place,
    rows_without_field,
    wanted_columns,
)
from logitcask.pipeline.corpus.streams import CorruptFileError, arrow_errors, open_file


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
    except CorruptFileError:
        return ()


def row_group_range(piece: FileSlice) -> tuple[int, int]:
    """First stored byte of a slice of row groups, and one past its last; the slices of a file cover all its bytes."""
    if piece.stop == 0:
        return 0, piece.file.size_bytes
    try:
        with _open(piece.file) as parquet:
            bounds = [_first_byte(parquet.metadata.row_group(index)) for index in range(parquet.num_row_groups)]
    except CorruptFileError:
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

    The rows of a row group before the damage are kept; the rest of the group is one rejection. So is a file whose slice
    is empty, because opening it would end this process.
    """
    if piece.stop == 0:
        detail = "parquet: the Parquet library dies of the file's metadata, so nothing was read"
        yield Rejected(place=row_place(piece.file, 1), reason="corrupt_stream", detail=detail)
        return
    try:
        with _open(piece.file) as parquet:
            first_row = sum(parquet.metadata.row_group(index).num_rows for index in range(piece.start))
            for index in range(piece.start, min(piece.stop, parquet.num_row_groups)):
                yield from _read_row_group(parquet, index, piece.file, first_row, fields)
                first_row += parquet.metadata.row_group(index).num_rows
    except CorruptFileError as e:
        yield Rejected(place=row_place(piece.file, 1), reason="corrupt_stream", detail=f"parquet: {e}")


def _read_row_group(
    parquet: pq.ParquetFile, index: int, file: CorpusFile, first_row: int, fields: Fields
) -> Iterator[RawDocument | Rejected]:
    names, row = parquet.schema_arrow.names, first_row
    columns = wanted_columns(names, fields)
    if fields.required not in columns:
        stop = first_row + parquet.metadata.row_group(index).num_rows
        yield from rows_without_field(file, range(first_row + 1, stop + 1), names, fields)
        return
    try:
        for batch in _batches(parquet, index, columns):
            yield from documents_of_batch(batch, file, row, fields)
            row += batch.num_rows
    except CorruptFileError as e:
        detail = f"parquet: row group {index}: {e}; the rest of the row group was not read"
        yield Rejected(place=row_place(file, row + 1), reason="corrupt_stream", detail=detail)


def _batches(parquet: pq.ParquetFile, index: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with arrow_errors():
        batches = iter(parquet.iter_batches(BATCH_ROWS, row_groups=[index], columns=columns, use_threads=False))
    while True:
        with arrow_errors():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextmanager
def _open(file: CorpusFile) -> Iterator[pq.ParquetFile]:
    with open_file(file) as stream:
        with arrow_errors():
            parquet = pq.ParquetFile(stream, page_checksum_verification=True)
        yield parquet
