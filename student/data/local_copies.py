"""Local copies of remote shards, by digest, in a directory that stays within so many bytes.

A shard is fetched whole when it is first opened: random access would fetch most of it in small requests, and the next
epoch again. What was used longest ago goes first. Several processes may share the directory: a copy appears under its
digest in one step, and one that is removed while it is read stays readable, and takes up its space, until it is closed.
What killed downloads leave counts too, and is removed after an hour. Beyond the bound are only the shard that a process
fetches at the moment and the removed ones that it has open (two of each split of a dataset).
"""

import hashlib
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from logitcask.schemas import storage
from logitcask.schemas.errors import CorruptShardError, MissingShardError

DEFAULT_BYTES = 20 << 30
_CHUNK_BYTES = 1 << 24
# A download writes every few seconds; one that has not for so long was killed.
_STALE_SECONDS = 3600


class LocalCopies:
    """Copies of files on other machines.

    Args:
        directory: Made if need be; nothing else should live in it.
        max_bytes: The total to stay within. The newest copy stays even if it alone is larger.
    """

    def __init__(self, directory: str | Path, max_bytes: int = DEFAULT_BYTES) -> None:
        self._directory, self._max_bytes = Path(directory), max_bytes

    def path(self, url: str, digest: str) -> str:
        """A local path with the file's contents; the URL itself where it is local already.

        Args:
            url: Any fsspec URL.
            digest: Of the whole file, as its record has it ("sha256:…").

        Raises:
            MissingShardError: There is no such file.
            CorruptShardError: Its contents do not have the digest.
        """
        if storage.is_local(url):
            return url
        copy = self._directory / f"{digest.rpartition(':')[2]}.parquet"
        if copy.exists():
            with suppress(FileNotFoundError):
                os.utime(copy)  # its age is the time of its last use
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
                    f"{storage.redact(url)}: not the file that was written (expected {digest}, found {found}); restore "
                    "it, or remove it and annotate again"
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
        """Downloads that may be under way; removes those that were killed."""
        young = []
        for written, size, path in self._sizes(f"{storage.TEMPORARY_PREFIX}*"):
            if time.time() - written > _STALE_SECONDS:
                path.unlink(missing_ok=True)
            else:
                young.append((written, size, path))
        return young

    def _sizes(self, pattern: str) -> list[tuple[float, int, Path]]:
        """Time of the last change (seconds), size (bytes) and path of some files."""
        found = []
        for path in self._directory.glob(pattern):
            with suppress(FileNotFoundError):  # another process may be making room too
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
