"""Corpus files: which files the given paths match, their names and formats, and which are left out and why.

A file is named relative to the path that was given, so that the same corpus has the same names wherever it is mounted.
"""

import os
import posixpath
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from logitcask.pipeline.corpus.range_digest import RangeDigest
from logitcask.schemas import storage
from logitcask.schemas.errors import CorpusError
from logitcask.schemas.storage import StoredFile
from logitcask.teacher.text.rules import TOKEN_RULES

Format = Literal["text", "jsonl", "json", "csv", "tsv", "arrow", "parquet"]
Compression = Literal["gzip", "zstd"]

FORMATS: dict[str, Format] = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".parquet": "parquet",
}
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
SUPPORTED = ".txt, .md, .jsonl, .ndjson, .json, .csv, .tsv (each also with .gz or .zst), .parquet, .arrow and .feather"
# Formats that need a seekable file.
_UNCOMPRESSED: set[Format] = {"arrow", "parquet"}
# What a dataset reads that was begun by the first rules: these formats only, and hidden files too.
_FIRST_SUFFIXES = {".txt", ".md", ".jsonl", ".parquet"}
_WILDCARDS = "*?["


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
        stop: One past the last byte or row group; 0 for a .parquet file that must not be opened.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """What paths, directories and globs match.

    Attributes:
        files: The files to read, sorted by name, each once.
        skipped: The reason for each URL that is not read, without credentials.
    """

    files: tuple[CorpusFile, ...]
    skipped: Mapping[str, str]

    def num_skipped(self) -> dict[str, int]:
        """Files that are not read, by reason."""
        return dict(sorted(Counter(self.skipped.values()).items()))

    def describe_skipped(self) -> str:
        """One line with each reason, its number of files, and the first of them."""
        first: dict[str, str] = {}
        for url, reason in self.skipped.items():
            first.setdefault(reason, url)
        return "; ".join(f"{reason}: {count} ({first[reason]})" for reason, count in self.num_skipped().items())


def find_corpus(patterns: Sequence[str], recorded: Collection[str] | None = ()) -> tuple[CorpusFile, ...]:
    """The files of `scan_corpus`."""
    return scan_corpus(patterns, recorded).files


def scan_corpus(
    patterns: Sequence[str], recorded: Collection[str] | None = (), token_rules: int = TOKEN_RULES
) -> Corpus:
    """The files that paths, directories and globs (any fsspec URL) match.

    Hidden files, files of unsupported formats, and files that a link shows a second time are left out.

    Args:
        patterns: As given.
        recorded: Patterns (`recorded_pattern`) that the dataset was made of: their files may be gone. None if that is
            not known, and all files may be gone.
        token_rules: Of the dataset: those of version 1 take hidden and linked files, and know fewer formats.

    Raises:
        CorpusError: Another pattern matches nothing that can be read, or every file is empty.
    """
    found: dict[str, StoredFile] = {}
    below: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for pattern in patterns:
        matches = storage.expand(pattern, skipped)
        unread = {match.url: reason for match in matches if (reason := _unread(match.url, pattern, token_rules))}
        may_be_gone = recorded is None or recorded_pattern(pattern) in recorded
        if len(unread) == len(matches) and not may_be_gone:
            raise CorpusError(f"corpus {storage.redact(pattern)}: {_describe_nothing(matches, unread.values())}")
        skipped |= unread
        for match in matches:
            if match.url not in found and match.url not in unread:
                found[match.url], below[match.url] = match, pattern
    for url, reason in _linked_twice(found) if token_rules > 1 else ():
        skipped[url] = reason
        del found[url]
    readable = [found[url] for url in sorted(found)]
    if readable and not any(file.size_bytes for file in readable):
        raise CorpusError(f"corpus {_describe(patterns)}: all {len(readable)} file(s) are empty")
    _require_different_urls(readable)
    names = _names({file.url: below[file.url] for file in readable})
    return Corpus(
        files=tuple(sorted((_corpus_file(file, names[file.url]) for file in readable), key=lambda file: file.name)),
        # A file can be hidden for one pattern and named by another.
        skipped={utf8_name(storage.redact(url)): skipped[url] for url in sorted(skipped) if url not in found},
    )


def _describe_nothing(matches: Sequence[StoredFile], reasons: Iterable[str]) -> str:
    if not matches:
        return "no file found; expected a file, a directory or a glob"
    return (
        f"{len(matches)} file(s), none of a supported format ({', '.join(sorted(set(reasons)))}); "
        f"supported: {SUPPORTED}"
    )


def _unread(url: str, pattern: str, token_rules: int) -> str | None:
    """Why a file that a pattern matches is not read; None if it is."""
    if token_rules > 1 and _is_hidden(url, pattern):
        return "hidden"
    if classify(url, token_rules) is not None:
        return None
    suffix = posixpath.splitext(storage.file_name(url))[1]
    return f"unsupported format {suffix}" if suffix else "no file name suffix"


def _is_hidden(url: str, pattern: str) -> bool:
    """Whether a name below what the pattern spells out begins with a dot, as `.ipynb_checkpoints` does."""
    components = pattern.rstrip("/").split("/")
    if any(one.startswith(".") and one.strip(".") for one in components[_num_fixed(components) :]):
        return False
    below = storage.redact(url).removeprefix(fixed_url(pattern)).split("::", 1)[0]
    return any(one.startswith(".") for one in below.split("/"))


def recorded_pattern(pattern: str) -> str:
    """A path, directory or glob as the dataset records it: absolute, without credentials."""
    return utf8_name(storage.redact(storage.absolute(pattern)))


def named_by_common_directory(files: Iterable[CorpusFile]) -> list[CorpusFile]:
    """The files named as earlier releases did: relative to the deepest directory that holds all, sorted by URL."""
    files = sorted(files, key=lambda file: file.url)
    urls = [storage.redact(file.url) for file in files]
    root = posixpath.commonpath([posixpath.dirname(url) for url in urls]) if urls and _one_store(urls) else ""
    return [replace(file, name=utf8_name(url[len(root) :].lstrip("/"))) for file, url in zip(files, urls, strict=True)]


def _linked_twice(urls: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Local files that a link shows a second time, under the names that are left out, with the reason."""
    names: dict[str, list[str]] = {}
    folders: dict[str, str] = {}
    for url in urls:
        if not storage.is_local(url):
            continue
        folder, name = os.path.split(url)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        # A link is rare, and asking for the real path of every file is slow.
        path = f"{folders[folder]}/{name}"
        names.setdefault(os.path.realpath(path) if os.path.islink(path) else path, []).append(url)  # noqa: PTH114
    for real, same in names.items():
        kept = real if real in same else min(same)
        yield from ((url, "link to another file of the corpus") for url in same if url != kept)


def _describe(patterns: Iterable[str]) -> str:
    return ", ".join(storage.redact(pattern) for pattern in patterns)


def classify(url: str, token_rules: int = TOKEN_RULES) -> tuple[Format, Compression | None] | None:
    """Format and compression by the suffixes of a file's name; None if they are not supported."""
    stem, suffix = posixpath.splitext(storage.file_name(url).lower())
    compression = COMPRESSIONS.get(suffix)
    if compression is not None:
        suffix = posixpath.splitext(stem)[1]
    format_ = FORMATS.get(suffix)
    if format_ is None or (compression is not None and format_ in _UNCOMPRESSED):
        return None
    return None if token_rules == 1 and suffix not in _FIRST_SUFFIXES else (format_, compression)


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
    fs, path = storage.filesystem("/".join(components[: _num_fixed(components)]))
    return storage.redact(path if storage.is_local(pattern) else fs.unstrip_protocol(path)).rstrip("/")


def _num_fixed(components: Sequence[str]) -> int:
    """How many components come before the first with a wildcard."""
    return next((i for i, one in enumerate(components) if any(c in one for c in _WILDCARDS)), len(components))


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
