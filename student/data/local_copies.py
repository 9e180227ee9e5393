"""Local copies of remote shards, named by digest, in a directory of bounded size.

A shard is fetched as a whole when it is first opened: random access would fetch most of it in small requests, and again
in every epoch. The least recently used copy is removed first. Several processes may share the directory: a copy appears
under its digest atomically. A copy that is removed while it is open stays readable, and occupies disk space, until it
is closed. Partial files of killed downloads count too, and are removed after an hour. Only two things are not counted:
the shard that a process is fetching, and the removed copies that it has open (two per split of a dataset).
"""

import hashlib
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from logitcask.schemas import storage
from logitcask.schemas.checked_json import is_file_name
from logitcask.schemas.errors import CorruptShardError, MissingShardError

DEFAULT_BYTES = 20 << 30
_CHUNK_BYTES = 1 << 24
# A download writes every few seconds; one that has not written for an hour was killed.
_STALE_SECONDS = 3600


class LocalCopies:
    """Copies of files on other machines.

    Args:
        directory: Created if it does not exist; it should hold nothing else.
        max_bytes: The maximum total size. The newest copy is kept even if it alone is larger.
    """

    def __init__(self, directory: str | Path, max_bytes: int = DEFAULT_BYTES) -> None:
        self._directory, self._max_bytes = Path(directory), max_bytes

    def path(self, url: str, digest: str) -> str:
        """A local path with the file's contents; the URL itself if it is local.

        Args:
            url: Any fsspec URL.
            digest: Digest of the whole file, as in its record ("sha256:…").

        Raises:
            MissingShardError: There is no such file.
            CorruptShardError: Its contents have another digest.
        """
        if storage.is_local(url):
            return url
        name = digest.rpartition(":")[2]
        if not is_file_name(name):
            raise CorruptShardError(
                f"{storage.redact(url)}: no digest in the list of shards ({digest!r}); restore the list"
            )
        copy = self._directory / f"{name}.parquet"
        if copy.exists():
            with suppress(FileNotFoundError):
                os.utime(copy)  # the modification time records the last use
                return str(copy)
        self._fetch(url, digest, copy)
        self._make_room(copy)
        return str(copy)

    def _fetch(self, url: str, digest: str, copy: Path) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=storage.TEMPORARY_PREFIX, dir=self._directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                found = _download(url, file)
            if found != digest:
                raise CorruptShardError(
                    f"{storage.redact(url)}: contents differ from those recorded (expected {digest}, found {found}); "
                    "restore the file, or remove it and annotate again"
                )
            Path(name).replace(copy)
        finally:
            with suppress(FileNotFoundError):
                Path(name).unlink()

    def _make_room(self, newest: Path) -> None:
        copies = self._sizes("*.parquet")
        total = sum(size for _, size, _ in [*copies, *self._unfinished()])
        for _, size, path in sorted(copies):
            if total <= self._max_bytes:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size

    def _unfinished(self) -> list[tuple[float, int, Path]]:
        """Downloads that may be in progress; removes those that were killed."""
        recent = []
        for written, size, path in self._sizes(f"{storage.TEMPORARY_PREFIX}*"):
            if time.time() - written > _STALE_SECONDS:
                path.unlink(missing_ok=True)
            else:
                recent.append((written, size, path))
        return recent

    def _sizes(self, pattern: str) -> list[tuple[float, int, Path]]:
        """Modification time (seconds), size (bytes) and path of the files that match a pattern."""
        found = []
        for path in self._directory.glob(pattern):
            with suppress(FileNotFoundError):  # another process may have removed it
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return found


def _download(url: str, file: IO[bytes]) -> str:
    """Copies a file and returns its digest."""
    fs, path = storage.filesystem(url)
    sha = hashlib.sha256()
    try:
        with fs.open(path, "rb", block_size=_CHUNK_BYTES) as source:
            while piece := source.read(_CHUNK_BYTES):
                assert isinstance(piece, bytes)
                sha.update(piece)
                file.write(piece)
    except FileNotFoundError as error:
        raise MissingShardError(f"{storage.redact(url)}: no such shard; restore it, or annotate again") from error
    return f"sha256:{sha.hexdigest()}"
