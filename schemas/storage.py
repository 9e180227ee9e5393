"""Files under any fsspec URL: listing, whole reads, and the one atomic, create-only way to write.

A file appears whole or not at all, and the first writer wins: that is what makes a unit of work exactly-once by
effect, however often it is tried. Nothing here overwrites, but for `replace` (progress, never data).
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

# What a file is called while it is being written on a local disk; never listed as data.
TEMPORARY_PREFIX = ".tmp-"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file as a listing shows it.

    Attributes:
        url: Full fsspec URL (a plain path on local disks).
        size_bytes: Its length.
        etag: Changes whenever the content does: the store's own ETag, checksum or generation where it gives one,
            else the time of the last change in nanoseconds. Empty where the store tells nothing.
    """

    url: str
    size_bytes: int
    etag: str


def filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system behind a URL and the path inside it. Listings are never cached: other processes write too."""
    options = {"use_listings_cache": False} if not _is_local(url) else {}
    return fsspec.url_to_fs(url, **options)


def _is_local(url: str) -> bool:
    return "://" not in url or url.startswith(("file://", "local://"))


def join(url: str, *parts: str) -> str:
    """`url` with path components appended."""
    return "/".join([url.rstrip("/") or "/", *parts]) if url != "/" else "/" + "/".join(parts)


def file_name(url: str) -> str:
    """The last path component of a URL."""
    return PurePosixPath(urlsplit(url).path or url).name


def redact(url: str) -> str:
    """`url` without user, password, and query: fit for a manifest, a log or an error."""
    if "://" not in url:
        return url
    split = urlsplit(url)
    host = split.netloc.rpartition("@")[2]
    return urlunsplit((split.scheme, host, split.path, "", ""))


def exists(url: str) -> bool:
    fs, path = filesystem(url)
    return bool(fs.exists(path))


def read_bytes(url: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Contents, whole or of bytes start..stop (negative: from the end).

    Raises:
        FileNotFoundError: There is no such file.
    """
    fs, path = filesystem(url)
    data = fs.cat_file(path, start=start, end=stop)
    assert isinstance(data, bytes)
    return data


def read_json(url: str) -> Any:
    """Parsed contents.

    Raises:
        FileNotFoundError: There is no such file.
        json.JSONDecodeError: It is not JSON.
    """
    return json.loads(read_bytes(url))


def describe_file(url: str) -> StoredFile:
    """Size and etag of one file.

    Raises:
        FileNotFoundError: There is no such file.
    """
    fs, path = filesystem(url)
    return _stored_file(fs, fs.info(path))


def list_files(url: str) -> list[StoredFile]:
    """All files below a directory, sorted by URL; empty where there is no such directory."""
    fs, path = filesystem(url)
    try:
        found = fs.find(path, detail=True)
    except FileNotFoundError:
        return []
    assert isinstance(found, dict)
    # Files that are still being written come and go while we look.
    whole = (info for name, info in found.items() if not file_name(name).startswith(TEMPORARY_PREFIX))
    return sorted((_stored_file(fs, info) for info in whole), key=lambda file: file.url)


def expand(pattern: str) -> list[StoredFile]:
    """What a user means by a file, a directory (all files below it) or a glob; empty where nothing is there."""
    fs, path = filesystem(pattern)
    if any(character in path for character in "*?[") and not fs.exists(path):
        matches = [match for match in fs.glob(path) if not fs.isdir(match)]
        return [_stored_file(fs, fs.info(match)) for match in sorted(map(str, matches))]
    if fs.isdir(path):
        return list_files(pattern)
    return [_stored_file(fs, fs.info(path))] if fs.exists(path) else []


def create(url: str, data: bytes) -> bool:
    """Writes a file that was not there, whole and durably, or leaves the one that was.

    Returns:
        True if this call made the file; False if there was one already, which stays as it is.
    """
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return _create_local(Path(path), data)
    try:
        fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    return True


def create_json(url: str, value: Any) -> bool:
    """`create` with readable JSON: sorted keys, one line each."""
    return create(url, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def replace(url: str, data: bytes) -> None:
    """Writes a file whole, over an older one if need be: for progress reports, never for data."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        with _temporary_file(Path(path), data) as temporary:
            temporary.replace(path)
    else:
        fs.pipe_file(path, data)


def _create_local(path: Path, data: bytes) -> bool:
    with _temporary_file(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:
            # File systems without hard links (exFAT, some network mounts): not create-only, but still whole.
            if path.exists():
                return False
            temporary.replace(path)
    _sync_directory(path.parent)
    return True


@contextmanager
def _temporary_file(path: Path, data: bytes) -> Iterator[Path]:
    """`data`, durably, under a temporary name beside `path`; the name is gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield Path(name)
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stored_file(fs: AbstractFileSystem, info: dict) -> StoredFile:
    local = isinstance(fs, LocalFileSystem)
    url = info["name"] if local else fs.unstrip_protocol(info["name"])
    return StoredFile(url=url, size_bytes=int(info["size"]), etag=_etag(info, local=local))


def _etag(info: dict, *, local: bool) -> str:
    if local:
        return str(Path(info["name"]).stat().st_mtime_ns)
    for key in ("ETag", "etag", "md5Hash", "generation", "mtime", "created"):
        if info.get(key):
            return str(info[key]).strip('"')
    return ""
