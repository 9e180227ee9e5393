"""Files under any fsspec URL: listing, reading, and one atomic, create-only way to write.

A file appears whole or not at all, and the first writer wins: each unit of work therefore takes effect exactly once,
however often it is retried. Nothing here overwrites a file, except `replace` (for progress, never for data).

A store that is away is waited for (`schemas.outages`). When it refuses a request, or is not back in time, that is a
StorageError without credentials. Only FileNotFoundError and FileExistsError keep their type. Local disks keep their
OSError.
"""

import errno
import io
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from logitcask.schemas import fault_points
from logitcask.schemas.errors import ForeignOutputError, LogitcaskError, StorageError, StoreAwayError
from logitcask.schemas.outages import may_pass, wait_out
from logitcask.schemas.redaction import redact, scrub
from logitcask.schemas.system_errors import naming

if TYPE_CHECKING:
    # Imported only where it is used: `logitcask inspect` of a local dataset does not need it, and starts 0.1 s sooner.
    from fsspec import AbstractFileSystem

T = TypeVar("T")

# Names of files that are being written on a local disk begin with it; such files are never listed as data.
TEMPORARY_PREFIX = ".tmp-"

_DANGLING = "link to nothing"

# The answer of S3 while two writers create the same key and neither has won yet.
_CONFLICT = "ConditionalRequestConflict"
_CONFLICT_RETRY_SECONDS = (0.1, 0.4, 1.6, 6.4)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """An entry of a listing.

    Attributes:
        url: Full fsspec URL (a plain path on local disks).
        size_bytes: Length of the file.
        etag: Changes whenever the content does: the store's ETag, checksum or generation if there is one, else the
            modification time in nanoseconds. Empty if the store gives none of these.
    """

    url: str
    size_bytes: int
    etag: str


def filesystem(url: str) -> "tuple[AbstractFileSystem, str]":
    """The file system of a URL and the path in it. Listings are never cached, since other processes write too."""
    import fsspec

    options = {"use_listings_cache": False} if not is_local(url) else {}
    return fsspec.url_to_fs(url, **options)


def is_local(url: str) -> bool:
    """Whether a URL names a file on this machine."""
    return "://" not in url or url.startswith(("file://", "local://"))


def absolute(url: str) -> str:
    """A local path as an absolute one, with `~` expanded; another URL unchanged."""
    return str(local_path(url)) if is_local(url) else url


def join(url: str, *parts: str) -> str:
    """`url` with path components appended."""
    return "/".join([url.rstrip("/") or "/", *parts]) if url != "/" else "/" + "/".join(parts)


def inside(root: str, *parts: str) -> str:
    """`join`, of a file or directory that belongs to a dataset: what has its name must also be there.

    Args:
        root: The dataset's directory; it may be a link itself.
        parts: A path below it, without `..`.

    Raises:
        ForeignOutputError: On a local disk, the path leads out of the directory over a symbolic link, or to a device, a
            pipe or a socket.
    """
    url = join(root, *parts)
    if not is_local(url):
        return url
    path, top = local_path(url), local_path(root)
    below = path.relative_to(top).parts
    status = None
    with suppress(FileNotFoundError, NotADirectoryError):
        for depth in range(1, len(below) + 1):
            step = top.joinpath(*below[:depth])
            status = step.lstat()
            if stat.S_ISLNK(status.st_mode):
                if not _resolved(path).is_relative_to(top.resolve()):
                    raise ForeignOutputError(
                        f"{redact(str(step))}: a symbolic link that leads out of {redact(str(top))}; a dataset holds "
                        "its own files only: put the files there, or remove the link"
                    )
                status = path.stat()
                break
    if status is not None and not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ForeignOutputError(f"{redact(url)}: neither a file nor a directory (a device or a pipe); remove it")
    return url


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (RuntimeError, OSError) as error:
        raise ForeignOutputError(f"{redact(str(path))}: a symbolic link that leads to itself; remove it") from error


def file_name(url: str) -> str:
    """The last path component of a URL."""
    if "://" not in url:
        return PurePosixPath(url).name
    link = url.split("::", 1)[0]
    if "?" in link or (link.startswith("http") and "#" in link):
        # Keys of object stores may have these characters; only what could be a secret is no part of the name.
        link = redact(link)
    # A fast path: listings need this for millions of files.
    return link.rstrip("/").rpartition("/")[2]


def exists(url: str) -> bool:
    """Whether a file or a directory exists."""
    if is_local(url):
        return local_path(url).exists()
    try:
        # Not `fs.exists`: of some file systems it is False for every error.
        _ask(url, lambda fs, path: fs.info(path))
    except FileNotFoundError:
        return False
    return True


def read_bytes(url: str, start: int | None = None, stop: int | None = None, *, max_bytes: int | None = None) -> bytes:
    """The contents of a file, whole or only bytes start..stop (negative: from the end).

    Args:
        url: The file.
        start, stop: Which bytes; None: all.
        max_bytes: Of a local file that is read whole, return at most one byte more than this.

    Raises:
        FileNotFoundError: There is no such file.
        StorageError: The store failed.
    """
    if start is None and stop is None and is_local(url):
        try:
            with local_path(url).open("rb") as file:
                return file.read() if max_bytes is None else file.read(max_bytes + 1)
        except IsADirectoryError as error:
            raise ForeignOutputError(
                f"{redact(url)}: a directory, where a file should be; remove or rename it"
            ) from error
    data = _ask(url, lambda fs, path: fs.cat_file(path, start=start, end=stop))
    assert isinstance(data, bytes)
    return data


def open_reader(url: str) -> IO[bytes]:
    """A seekable binary stream; a failure while it is read is a StorageError too.

    Raises:
        FileNotFoundError: There is no such file.
        StorageError: The store failed.
    """
    file = _ask(url, lambda fs, path: fs.open(path, "rb"))
    return cast(IO[bytes], file if is_local(url) else _NamedErrorReader(file, url))


def describe_file(url: str) -> StoredFile:
    """Size and etag of one file.

    Raises:
        FileNotFoundError: There is no such file.
    """
    return _ask(url, lambda fs, path: _stored_file(fs, fs.info(path), url))


def list_members(root: str, directory: str, prefix: str = "") -> list[StoredFile]:
    """As `list_files`, of a directory of a dataset; links to directories are not followed.

    Raises:
        ForeignOutputError: As `inside`, of the directory or a file in it.
    """
    files = list_files(inside(root, directory), prefix, follow_links=False)
    if is_local(root):
        for file in files:
            with suppress(FileNotFoundError):
                if not stat.S_ISREG(os.lstat(file.url).st_mode):
                    inside(root, str(Path(file.url).relative_to(local_path(root))))
    return files


def list_tree(root: str) -> dict[str, StoredFile]:
    """All files below a directory by relative path, temporary files too; links are listed, but not followed."""
    if is_local(root):
        top = local_path(root)
        paths = [Path(folder, name) for folder, _, names in os.walk(top) for name in names]
        return {path.relative_to(top).as_posix(): _local_file(path, follow_links=False) for path in paths}

    def find(fs: "AbstractFileSystem", path: str) -> dict[str, StoredFile]:
        found = fs.find(path, detail=True)
        assert isinstance(found, dict)
        return {name[len(path) :].lstrip("/"): _stored_file(fs, info, root) for name, info in found.items()}

    return _ask(root, find)


def list_files(
    url: str, prefix: str = "", *, follow_links: bool = True, skipped: dict[str, str] | None = None
) -> list[StoredFile]:
    """All files below a directory, sorted by URL; empty if the directory does not exist.

    Args:
        url: The directory.
        prefix: List only files whose path relative to the directory begins with it. Object stores apply it themselves.
        follow_links: Whether to list what local directories hold that are symbolic links.
        skipped: Receives the local links that are not followed, with the reason.
    """
    if is_local(url):
        beginning, links = f"{local_path(url)}/{prefix}", {} if skipped is None else skipped
        found = [file for file in _walk(local_path(url), follow_links, links) if file.url.startswith(beginning)]
    else:
        found = _list_remote(url, prefix)
    # Files that are being written appear and vanish during a listing.
    whole = (file for file in found if not file_name(file.url).startswith(TEMPORARY_PREFIX))
    return sorted(whole, key=lambda file: file.url)


def _list_remote(url: str, prefix: str) -> list[StoredFile]:
    def find(fs: "AbstractFileSystem", path: str) -> list[StoredFile]:
        # Only file systems with flat listings know `prefix`; others would pass it to `ls`.
        found = fs.find(path, detail=True, prefix=prefix) if prefix else fs.find(path, detail=True)
        assert isinstance(found, dict)
        # Some programs mark a directory by an empty key with its name.
        folders = {name.rpartition("/")[0] for name in found}
        return [_stored_file(fs, info, url) for name, info in found.items() if not _is_folder(name, info, folders)]

    try:
        return _ask(url, find)
    except FileNotFoundError:
        return []


def _is_folder(name: str, info: dict, folders: set[str]) -> bool:
    if name.endswith("/") or info.get("type") == "directory":
        return True
    return not info.get("size") and name in folders


def _walk(directory: Path, follow_links: bool, skipped: dict[str, str]) -> Iterator[StoredFile]:
    """All files below a directory; a path of a file gives that file. Links that lead nowhere new are `skipped`."""
    if directory.is_file():
        yield _local_file(directory)
    for folder, folders, names in os.walk(directory, followlinks=follow_links):
        for name in list(folders):
            path = Path(folder, name)
            if path.is_symlink() and _leads_above(path):
                folders.remove(name)
                skipped[str(path)] = "link to a directory above it"
        for name in names:
            path = Path(folder, name)
            try:
                yield _local_file(path)
            except OSError as error:
                if path.is_symlink():
                    skipped[str(path)] = _DANGLING
                elif not isinstance(error, FileNotFoundError):  # removed since it was listed
                    raise


def _leads_above(link: Path) -> bool:
    """Whether a link leads to a directory on the way to it, so that following it would never end."""
    # Not `Path.resolve`, which raises an error for a link to itself.
    target = os.path.realpath(link)
    return any(target == os.path.realpath(parent) for parent in link.parents)


def _local_file(path: Path, *, follow_links: bool = True) -> StoredFile:
    status = path.stat(follow_symlinks=follow_links)
    return StoredFile(url=str(path), size_bytes=status.st_size, etag=str(status.st_mtime_ns))


def local_path(url: str) -> Path:
    """The path as fsspec resolves it: absolute, with `~` expanded."""
    path = url.split("://", 1)[1] if "://" in url else url
    return Path(path).expanduser().absolute()


def expand(pattern: str, skipped: dict[str, str] | None = None) -> list[StoredFile]:
    """The files that a file name, a directory (all files below it) or a glob stands for; empty if there are none.

    Args:
        pattern: A path or any fsspec URL.
        skipped: Receives the local links that are not followed, with the reason.
    """
    links = {} if skipped is None else skipped
    try:
        info = _ask(pattern, lambda fs, path: fs.info(path))
    except FileNotFoundError:
        return _ask(pattern, lambda fs, path: _glob(fs, path, pattern, links))
    if info["type"] == "directory":
        return list_files(pattern, skipped=links)
    return _ask(pattern, lambda fs, _: [_stored_file(fs, info, pattern)])


def _glob(fs: "AbstractFileSystem", path: str, pattern: str, skipped: dict[str, str]) -> list[StoredFile]:
    if not any(character in path for character in "*?["):
        return []
    found = fs.glob(path, detail=True)
    assert isinstance(found, dict)
    files = []
    for name, info in sorted(found.items()):
        if is_local(pattern) and Path(name).is_symlink() and not Path(name).exists():
            skipped[name] = _DANGLING
        elif not _is_folder(name, info, set()):
            files.append(_stored_file(fs, info, pattern))
    return files


def create(url: str, data: bytes) -> bool:
    """Creates a file, whole and durably; an existing file stays unchanged.

    Returns:
        True if this call created the file; False if a file existed. (False also if the store created this file and its
        answer was lost.)

    Raises:
        StorageError: The store failed; the file then does not exist, or is whole.
    """
    if is_local(url):
        return _create_local(Path(filesystem(url)[1]), data)
    return _ask(url, lambda fs, path: _create_remote(fs, path, data))


def _create_remote(fs: "AbstractFileSystem", path: str, data: bytes) -> bool:
    """A conditional put. (Not an opened file: an exception while it is open would publish the part written so far.)"""
    for wait_seconds in (*_CONFLICT_RETRY_SECONDS, None):
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if wait_seconds is None or _CONFLICT not in f"{error} {error.__cause__}":
                raise
            time.sleep(wait_seconds)
        else:
            return True
    raise AssertionError("the last attempt returns or raises")


def replace(url: str, data: bytes) -> None:
    """Writes a whole file, replacing an existing one: for progress reports, never for data.

    Does not wait for a store that is away: the report would be old.
    """
    with _named_errors(url):
        fs, path = filesystem(url)
        if is_local(url):
            with _temporary_file(Path(path), data) as temporary:
                temporary.replace(path)
        else:
            fs.pipe_file(path, data)


def remove(url: str) -> None:
    """Removes a file if it exists: for temporary files and leases, never for files that a snapshot names."""
    with suppress(FileNotFoundError):
        _ask(url, lambda fs, path: fs.rm_file(path))


def remove_member(root: str, path: str) -> None:
    """`remove`, of a file of a dataset. A link is removed, not what it leads to.

    Raises:
        ForeignOutputError: The directory that holds it is not in the dataset.
    """
    directory, _, name = path.rpartition("/")
    remove(join(inside(root, directory) if directory else root, name))


def _create_local(path: Path, data: bytes) -> bool:
    with _temporary_file(path, data) as temporary:
        fault_points.reach("written", path.name)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:
            # No hard links (exFAT, some network mounts): the file is still whole, but two writers may both succeed.
            if path.exists():
                return False
            temporary.replace(path)
    _sync_directory(path.parent)
    return True


@contextmanager
def _temporary_file(path: Path, data: bytes) -> Iterator[Path]:
    """Writes `data` durably under a temporary name next to `path`; removes that name afterwards.

    The umask decides who may read the file, as for any other; a file of `tempfile` would be readable by its owner only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{os.urandom(8).hex()}"
    try:
        with naming(path, temporary=temporary), temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ask(url: str, request: Callable[["AbstractFileSystem", str], T]) -> T:
    """The answer to a request, given the file system and the path in it; waits for a store that is away."""

    def ask() -> T:
        with _named_errors(url):
            return request(*filesystem(url))

    return ask() if is_local(url) else wait_out(ask)


@contextmanager
def _named_errors(url: str) -> Iterator[None]:
    """Turns all that a store's library raises into named errors without credentials."""
    try:
        yield
    except LogitcaskError:
        raise
    except (FileNotFoundError, FileExistsError) as error:
        # Some libraries put the whole URL into the message.
        if is_local(url):
            raise
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else FileExistsError
        number = errno.ENOENT if kind is FileNotFoundError else errno.EEXIST
        raise kind(number, os.strerror(number), redact(url)) from None
    except Exception as error:
        if is_local(url):
            raise
        kind = StoreAwayError if may_pass(error) else StorageError
        raise kind(
            f"{redact(url)}: the store failed or refused ({type(error).__name__}: {scrub(str(error))}). Check the "
            "address, the credentials and the network, then run the same command again: finished work is kept"
        ) from error


class _NamedErrorReader(io.RawIOBase):
    """A remote file whose failures are StorageErrors."""

    def __init__(self, file: Any, url: str) -> None:
        super().__init__()
        self._file, self._url = file, url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return wait_out(lambda: self._named(lambda: self._file.seek(offset, whence)))

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        position = self._file.tell()

        def read() -> bytes:
            if self._file.tell() != position:
                self._file.seek(position)
            return self._file.read(size)

        return wait_out(lambda: self._named(read))

    def _named(self, request: Callable[[], T]) -> T:
        with _named_errors(self._url):
            return request()

    def close(self) -> None:
        self._file.close()
        super().close()


def _stored_file(fs: "AbstractFileSystem", info: dict, asked: str) -> StoredFile:
    if is_local(asked):
        return _local_file(Path(info["name"]))
    return StoredFile(url=_url(fs, info["name"], asked), size_bytes=int(info["size"]), etag=_etag(info))


def _url(fs: "AbstractFileSystem", name: str, asked: str) -> str:
    """The URL of a file found under `asked`, with the host and the chained file systems of `asked`."""
    path = str(fs._strip_protocol(asked.split("::", 1)[0]))
    before, found, after = asked.partition(path)
    if not path or not found or "://" not in before:
        return fs.unstrip_protocol(name)
    return before + name + (after if after.startswith("::") else "")


def _etag(info: dict) -> str:
    for key in ("ETag", "etag", "md5Hash", "generation", "mtime", "created"):
        if info.get(key):
            return str(info[key]).strip('"')
    return ""
