"""Reading small corpus files in tests."""

import json
from collections.abc import Iterable
from pathlib import Path

from logitcask.pipeline.corpus.documents import RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields
from logitcask.pipeline.corpus.files import CorpusFile, FileSlice, find_corpus
from logitcask.pipeline.corpus.reading import read_documents


def read(path: Path, fields: Fields | None = None) -> list[RawDocument | Rejected]:
    """The documents of every file that a path matches, in order."""
    return read_all(find_corpus([str(path)]), fields)


def read_all(files: Iterable[CorpusFile], fields: Fields | None = None) -> list[RawDocument | Rejected]:
    """The documents of files, each read as a whole, in order."""
    slices = [FileSlice(file=file, start=0, stop=file.size_bytes, is_whole=True) for file in files]
    return [found for piece in slices for found in read_documents(piece, fields or Fields())]


def read_one(path: Path, data: bytes, fields: Fields | None = None) -> RawDocument | Rejected:
    """The only document of a file with these bytes."""
    path.write_bytes(data)
    [found] = read(path, fields)
    return found


def reasons(found: list[RawDocument | Rejected]) -> list[str]:
    """The reason of each rejection, "ok" for documents."""
    return [one.reason if isinstance(one, Rejected) else "ok" for one in found]


def line(**fields: object) -> bytes:
    """A line of a .jsonl file."""
    return json.dumps(fields).encode() + b"\n"
