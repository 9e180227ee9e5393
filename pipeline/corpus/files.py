"""Corpus files: which files the given paths match, their names and their formats.

A file is named relative to the path that was given, so that the same corpus has the same names wherever it is mounted.
"""

import posixpath
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from logitcask.pipeline.corpus.range_digest import RangeDigest
from logitcask.schemas import storage
from logitcask.schemas.errors import CorpusError
from logitcask.schemas.storage import StoredFile

Format = Literal["text", "jsonl", "parquet"]
Compression = Literal["gzip", "zstd"]

FORMATS: dict[str, Format] = {".txt": "text", ".md": "text", ".jsonl": "jsonl", ".parquet": "parquet"}
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_WILDCARDS = "*?["
SUPPORTED = ".txt, .md, .jsonl (each also with .gz or .zst) and .parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusFile:
    """One input file, as it was when the job was resolved.

    Attributes:
        url: Where it is.
        name: Its path relative to the path given; shown to users, and part of document ids.
        format: How it holds documents.
        compression: How it is compressed, or None.
        size_bytes: How much of it is read: its length, unless it has grown since it was planned.
        etag: Its etag or modification time; while both are equal, the file need not be read to be recognized.
        recorded_url: Its URL without credentials when it was first planned, if it is another one now.
        digest: Of its bytes, if another file of the dataset had the same name and size.
        reads: Sees the bytes as they are read.
    """

    url: str
    name: str
    format: Format
    compression: Compression | None
    size_bytes: int
    etag: str
    recorded_url: str = ""
    digest: str = ""
    reads: RangeDigest | None = field(default=None, compare=False, repr=False)

    @property
    def redacted_url(self) -> str:
        """The URL without credentials, safe for records and messages: that of the first run, wherever the file is."""
        return self.recorded_url or utf8_name(storage.redact(self.url))

    def identity(self) -> list[str | int]:
        """What names a file before it is read, for fingerprints."""
        return [self.name, self.size_bytes, *([self.digest] if self.digest else [])]


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSlice:
    """A slice of a file: a byte range of a .jsonl, row groups of a .parquet, else the whole file.

    Attributes:
        file: The file.
        start: First byte (a line belongs to the slice in which it starts) or first row group.
        stop: One past the last byte or row group.
        is_whole: Whether rows can be counted: the slice is the whole file, or `rows_before` is known.
        rows_before: Rows of the file before the slice.
        text_before: Bytes of the decompressed file before the slice of a compressed file.
        is_continued: Whether the slice of a compressed file starts inside a line.
    """

    file: CorpusFile
    start: int
    stop: int
    is_whole: bool
    rows_before: int = 0
    text_before: int = 0
    is_continued: bool = False


def find_corpus(patterns: Sequence[str], recorded: Collection[str] = ()) -> tuple[CorpusFile, ...]:
    """The files that paths, directories and globs (any fsspec URL) match, sorted by name, each once.

    Args:
        patterns: As given.
        recorded: Patterns (`recorded_pattern`) that the dataset was made of: their files may be gone.

    Raises:
        CorpusError: Another pattern matches nothing, no file has a supported format, or every file is empty.
    """
    found: dict[str, StoredFile] = {}
    below: dict[str, str] = {}
    for pattern in patterns:
        matches = storage.expand(pattern)
        if not matches and recorded_pattern(pattern) not in recorded:
            raise CorpusError(
                f"corpus {storage.redact(pattern)}: no file found; expected a file, a directory or a glob"
            )
        for match in matches:
            if match.url not in found:
                found[match.url], below[match.url] = match, pattern
    readable = [found[url] for url in sorted(found) if classify(url) is not None]
    if found and not readable:
        raise CorpusError(
            f"corpus {_describe(patterns)}: {len(found)} file(s), none of a supported format; supported: {SUPPORTED}"
        )
    if found and not any(file.size_bytes for file in readable):
        raise CorpusError(f"corpus {_describe(patterns)}: all {len(readable)} file(s) are empty")
    _require_different_urls(readable)
    names = _names({file.url: below[file.url] for file in readable})
    return tuple(sorted((_corpus_file(file, names[file.url]) for file in readable), key=lambda file: file.name))


def recorded_pattern(pattern: str) -> str:
    """A path, directory or glob as the dataset records it: absolute, without credentials."""
    return utf8_name(storage.redact(storage.absolute(pattern)))


def named_by_common_directory(files: Iterable[CorpusFile]) -> list[CorpusFile]:
    """The files named as earlier releases did: relative to the deepest directory that holds all, sorted by URL."""
    files = sorted(files, key=lambda file: file.url)
    urls = [storage.redact(file.url) for file in files]
    root = posixpath.commonpath([posixpath.dirname(url) for url in urls]) if urls and _one_store(urls) else ""
    return [replace(file, name=utf8_name(url[len(root) :].lstrip("/"))) for file, url in zip(files, urls, strict=True)]


def _describe(patterns: Iterable[str]) -> str:
    return ", ".join(storage.redact(pattern) for pattern in patterns)


def classify(url: str) -> tuple[Format, Compression | None] | None:
    """Format and compression by the suffixes of a file's name; None if they are not supported."""
    stem, suffix = posixpath.splitext(storage.file_name(url).lower())
    compression = COMPRESSIONS.get(suffix)
    if compression is not None:
        suffix = posixpath.splitext(stem)[1]
    format_ = FORMATS.get(suffix)
    if format_ is None or (format_ == "parquet" and compression is not None):
        return None
    return format_, compression


def _require_different_urls(files: Sequence[StoredFile]) -> None:
    urls = [storage.redact(file.url) for file in files]
    if len(set(urls)) < len(urls):
        twice = next(url for url in urls if urls.count(url) > 1)
        raise CorpusError(
            f"corpus: several files are {twice} without user, password and query, which no record contains; their "
            "documents would be indistinguishable. Give the files different names"
        )


def _names(patterns: Mapping[str, str]) -> dict[str, str]:
    """Names relative to the pattern that matched each URL. Equal ones get as many more directories as tell them apart.

    Args:
        patterns: URL to pattern.
    """
    roots = {pattern: fixed_url(pattern) for pattern in sorted(set(patterns.values()))}
    components = {url: storage.redact(url).split("/") for url in patterns}
    depths = {url: _depth(storage.redact(url), roots[pattern]) for url, pattern in patterns.items()}
    while True:
        holders: dict[str, list[str]] = {}
        for url, depth in depths.items():
            holders.setdefault("/".join(components[url][-depth:]), []).append(url)
        equal = [url for urls in holders.values() if len(urls) > 1 for url in urls]
        if not equal:
            return {urls[0]: utf8_name(name) for name, urls in holders.items()}
        for url in equal:
            depths[url] += 1


def _depth(url: str, root: str) -> int:
    """Number of path components of a file's name below a root; a file that is the root itself has one."""
    return url[len(root) :].count("/") if url.startswith(f"{root}/") else 1


def fixed_url(pattern: str) -> str:
    """The URL of a path up to its first component with a wildcard, in the form that listings use."""
    components = pattern.rstrip("/").split("/")
    first = next((i for i, one in enumerate(components) if any(c in one for c in _WILDCARDS)), len(components))
    fs, path = storage.filesystem("/".join(components[:first]))
    return storage.redact(path if storage.is_local(pattern) else fs.unstrip_protocol(path)).rstrip("/")


def _corpus_file(file: StoredFile, name: str) -> CorpusFile:
    kind = classify(file.url)
    assert kind is not None, "only files of a supported format"
    return CorpusFile(
        url=file.url, name=name, format=kind[0], compression=kind[1], size_bytes=file.size_bytes, etag=file.etag
    )


def utf8_name(name: str) -> str:
    """File names need not be UTF-8, but records must be. Keeps control characters, because fingerprints cover names."""
    return name.encode("utf-8", "backslashreplace").decode()


def _one_store(urls: Sequence[str]) -> bool:
    """Whether all URLs have the same scheme and are equally absolute."""
    return len({(url.partition("://")[0] if "://" in url else "", url.startswith("/")) for url in urls}) == 1
