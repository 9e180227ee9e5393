"""Corpus files: which files the given paths match, and their formats."""

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from logitcask.schemas import storage
from logitcask.schemas.errors import CorpusError
from logitcask.schemas.storage import StoredFile

Format = Literal["text", "jsonl", "parquet"]
Compression = Literal["gzip", "zstd"]

FORMATS: dict[str, Format] = {".txt": "text", ".md": "text", ".jsonl": "jsonl", ".parquet": "parquet"}
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
SUPPORTED = ".txt, .md, .jsonl (each also with .gz or .zst) and .parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusFile:
    """One input file, as it was when the job was resolved.

    Attributes:
        url: Where it is.
        name: Its path relative to the corpus; shown to users, and part of document ids.
        format: How it holds documents.
        compression: How it is compressed, or None.
        size_bytes: Its length; checked again when it is read.
        etag: Its etag; checked again when it is read.
    """

    url: str
    name: str
    format: Format
    compression: Compression | None
    size_bytes: int
    etag: str

    @property
    def redacted_url(self) -> str:
        """The URL without credentials, safe for records and messages."""
        return _as_utf8(storage.redact(self.url))

    def identity(self) -> list[str | int]:
        """Everything that determines its documents' bytes and places, for fingerprints."""
        return [self.redacted_url, self.name, self.size_bytes, self.etag]


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSlice:
    """A slice of a file: a byte range of a .jsonl, row groups of a .parquet, else the whole file.

    Attributes:
        file: The file.
        start: First byte (a line belongs to the slice in which it starts) or first row group.
        stop: One past the last byte or row group.
        is_whole: Whether the slice is the whole file, so that rows can be counted.
    """

    file: CorpusFile
    start: int
    stop: int
    is_whole: bool


def find_corpus(patterns: Sequence[str]) -> tuple[CorpusFile, ...]:
    """The files that paths, directories and globs (any fsspec URL) match, sorted by URL, each once.

    Raises:
        CorpusError: A pattern matches nothing, no file has a supported format, or every file is empty.
    """
    found: dict[str, StoredFile] = {}
    for pattern in patterns:
        matches = storage.expand(pattern)
        if not matches:
            raise CorpusError(
                f"corpus {storage.redact(pattern)}: no file found; expected a file, a directory or a glob"
            )
        found |= {match.url: match for match in matches}
    readable = [found[url] for url in sorted(found) if _classify(url) is not None]
    if not readable:
        raise CorpusError(
            f"corpus {_describe(patterns)}: {len(found)} file(s), none of a supported format; supported: {SUPPORTED}"
        )
    if not any(file.size_bytes for file in readable):
        raise CorpusError(f"corpus {_describe(patterns)}: all {len(readable)} file(s) are empty")
    return _name(readable)


def _describe(patterns: Iterable[str]) -> str:
    return ", ".join(storage.redact(pattern) for pattern in patterns)


def _classify(url: str) -> tuple[Format, Compression | None] | None:
    stem, suffix = posixpath.splitext(storage.file_name(url).lower())
    compression = COMPRESSIONS.get(suffix)
    if compression is not None:
        suffix = posixpath.splitext(stem)[1]
    format_ = FORMATS.get(suffix)
    if format_ is None or (format_ == "parquet" and compression is not None):
        return None
    return format_, compression


def _name(files: Sequence[StoredFile]) -> tuple[CorpusFile, ...]:
    """Names relative to the deepest directory that holds all files: short, and unique for any patterns."""
    urls = [storage.redact(file.url) for file in files]
    if len(set(urls)) < len(urls):
        twice = next(url for url in urls if urls.count(url) > 1)
        raise CorpusError(
            f"corpus: several files are {twice} without user, password and query, which no record contains; their "
            "documents would be indistinguishable. Give the files different names"
        )
    root = posixpath.commonpath([posixpath.dirname(url) for url in urls]) if _one_store(urls) else ""
    return tuple(
        CorpusFile(
            url=file.url,
            name=_as_utf8(url[len(root) :].lstrip("/")),
            format=kind[0],
            compression=kind[1],
            size_bytes=file.size_bytes,
            etag=file.etag,
        )
        for file, url in zip(files, urls, strict=True)
        if (kind := _classify(file.url)) is not None
    )


def _as_utf8(name: str) -> str:
    """File names need not be UTF-8, but records must be. Keeps control characters, because fingerprints cover names."""
    return name.encode("utf-8", "backslashreplace").decode()


def _one_store(urls: Sequence[str]) -> bool:
    """Whether all URLs have the same scheme and are equally absolute."""
    return len({(url.partition("://")[0] if "://" in url else "", url.startswith("/")) for url in urls}) == 1
