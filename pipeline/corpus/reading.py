"""Reads any supported format."""

from collections.abc import Callable, Iterator

from logitcask.pipeline.corpus.arrow import read_arrow
from logitcask.pipeline.corpus.csv_rows import read_csv
from logitcask.pipeline.corpus.documents import RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields
from logitcask.pipeline.corpus.files import FileSlice, Format
from logitcask.pipeline.corpus.json_values import read_json
from logitcask.pipeline.corpus.jsonl import read_jsonl
from logitcask.pipeline.corpus.parquet import read_parquet, row_group_range
from logitcask.pipeline.corpus.text import read_text

_READERS: dict[Format, Callable[[FileSlice, Fields], Iterator[RawDocument | Rejected]]] = {
    "text": read_text,
    "jsonl": read_jsonl,
    "json": read_json,
    "csv": read_csv,
    "tsv": read_csv,
    "arrow": read_arrow,
    "parquet": read_parquet,
}


def read_documents(piece: FileSlice, fields: Fields) -> Iterator[RawDocument | Rejected]:
    """Every document in a slice of a corpus file, in order, or its rejection.

    Raises:
        CorpusError: The file is missing or has changed since the job was resolved.
    """
    return _READERS[piece.file.format](piece, fields)


def stored_range(piece: FileSlice) -> tuple[int, int]:
    """The stored bytes of a slice, first and one past the last; the slices of a file cover it without a gap."""
    return row_group_range(piece) if piece.file.format == "parquet" else (piece.start, piece.stop)
