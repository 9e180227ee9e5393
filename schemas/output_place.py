"""Whether a place can be written, found out before any work: by writing a small file there and removing it.

Permissions alone do not tell it: of a read-only mount, of an object store, or to an administrator.
"""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from logitcask.schemas import storage
from logitcask.schemas.errors import ForeignOutputError, StorageError
from logitcask.schemas.system_errors import naming

_MAX_RACES = 5


def require_output_directory(out: str | Path, *, option: str = "--out") -> None:
    """Refuses an output directory that is a file or cannot be written.

    Args:
        out: The directory: a path or any fsspec URL. It need not exist, and does not exist afterwards if it did not.
        option: The option that names the directory, for messages.

    Raises:
        ForeignOutputError: The directory is a file, or its bucket does not exist.
        StorageError: The store refuses to write.
        OSError: The disk refuses to write.
    """
    out = str(out)
    if storage.is_local(out):
        _try_local(storage.local_path(out), option)
    else:
        _try_remote(out, option)


def require_output_file(file: str, *, option: str) -> None:
    """Refuses a file that is a directory, or whose directory cannot be written; errors as above."""
    if not storage.is_local(file):
        return
    path = storage.local_path(file)
    if path.is_dir():
        raise ForeignOutputError(f"{file}: is a directory; give {option} the name of a file")
    _try_local(path.parent, option)


def require_outside(out: str, corpus: Sequence[str]) -> None:
    """Refuses an output directory that is a directory of the corpus, or lies in one.

    Raises:
        ForeignOutputError: It is.
    """
    place = _canonical(out)
    for source in map(_canonical, corpus):
        is_inside = place == source or place.startswith(source.rstrip("/") + "/")
        if is_inside and not (storage.is_local(out) and os.path.isfile(source)):  # noqa: PTH113 - not a URL
            raise ForeignOutputError(
                f"{storage.redact(out)}: is inside the corpus {storage.redact(source)}, which would then change; "
                "choose another --out"
            )


def _canonical(url: str) -> str:
    return os.path.realpath(storage.local_path(url)) if storage.is_local(url) else url.rstrip("/")


def _try_local(directory: Path, option: str) -> None:
    for existing in (directory, *directory.parents):
        if existing.is_dir():
            break
        if os.path.lexists(existing):
            existing.stat()  # a loop of symbolic links is an error here
            raise ForeignOutputError(f"{existing}: is a file; give {option} a directory")
    for _ in range(_MAX_RACES):
        # Another command may remove the directories that it made for the same test.
        with suppress(FileNotFoundError), _made(directory):
            probe = directory / f"{storage.TEMPORARY_PREFIX}{secrets.token_hex(8)}"
            with naming(directory, temporary=probe):
                probe.write_bytes(b"x")
            probe.unlink()
            return


@contextmanager
def _made(directory: Path) -> Iterator[None]:
    """Makes a directory and its parents, and removes afterwards those that this call made."""
    made: list[Path] = []
    try:
        for missing in reversed([path for path in (directory, *directory.parents) if not path.is_dir()]):
            with suppress(FileExistsError):
                missing.mkdir()
                made.append(missing)
        yield
    finally:
        with suppress(OSError):
            for path in reversed(made):
                path.rmdir()


def _try_remote(out: str, option: str) -> None:
    probe = storage.join(out, f"{storage.TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    try:
        storage.create(probe, b"x")
    except FileNotFoundError as error:
        raise ForeignOutputError(
            f"{storage.redact(out)}: its bucket or container does not exist; create it, or choose another {option}"
        ) from error
    with suppress(StorageError):
        storage.remove(probe)
