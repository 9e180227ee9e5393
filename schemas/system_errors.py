"""Errors of the operating system, as one line with the file and what to do. Cheap to import.

A full disk, a missing permission and a limit of the system are not faults of this program. Libraries report them in
their own classes, so the number of the error is also searched in the text and in the causes of an exception.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from logitcask.schemas.errors import LogitcaskError

_AGAIN = "then run the same command again: finished work is kept"
_REMEDIES = {
    errno.ENOSPC: f"free space there, {_AGAIN}",
    errno.EDQUOT: f"free space there or raise the quota, {_AGAIN}",
    errno.EFBIG: f"raise the limit of file sizes (`ulimit -f`) or use another file system, {_AGAIN}",
    errno.EACCES: "change its permissions, or use another place",
    errno.EPERM: "change its permissions or attributes, or use another place",
    errno.EROFS: "use a place that can be written",
    errno.EISDIR: "give the name of a file",
    errno.ENOTDIR: "a part of this path is a file; give another path",
    errno.EEXIST: "something else is in this place; give another path",
    errno.ELOOP: "its symbolic links form a loop; correct them, or give another path",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "raise the limit of open files (`ulimit -n 4096`), or use fewer --workers",
    errno.ENFILE: "this machine has too many open files; end other programs",
    errno.ENOMEM: "this machine has too little memory; use smaller batches, or end other programs",
    errno.EAGAIN: "raise the limit of processes (`ulimit -u`), or use fewer --workers",
    errno.EIO: "the disk or its connection failed; check it",
    errno.ESTALE: f"the network file system lost this file; mount it again, {_AGAIN}",
    errno.ENOENT: "check the path",
    errno.ETXTBSY: f"another program uses it; end that program, {_AGAIN}",
    errno.EBUSY: f"another program uses it; end that program, {_AGAIN}",
}
# As Python, Arrow and Rust write it.
_NUMBER = re.compile(r"(?:\[[Ee]rrno |\(os error )(\d{1,3})[\])]")
_NAME = re.compile(r"['\"](/[^'\"\n]{1,4096})['\"]")
# PyTorch gives no number.
_WITHOUT_NUMBER = {
    "PytorchStreamWriter failed writing": errno.ENOSPC,
    "inline_container.cc": errno.ENOSPC,
    "No usable temporary directory": errno.ENOSPC,
}
_MAX_CAUSES = 10


def describe_system_error(error: BaseException | None) -> str | None:
    """The file, what the system refused, and what to do; None if neither `error` nor a cause is a system error."""
    described = _described(error)
    for _ in range(_MAX_CAUSES):
        if described is not None or error is None:
            break
        error = error.__cause__ or error.__context__
        # Where another error was raised in its place, a missing file was expected.
        described = None if isinstance(error, FileNotFoundError | FileExistsError) else _described(error)
    return described


@contextmanager
def naming(path: object, *, temporary: object = None) -> Iterator[None]:
    """Adds the file, or its directory, to system errors without one: those of `write`, and of other languages.

    Args:
        path: The file or directory.
        temporary: A name that says nothing to a user; `path` replaces it.
    """
    try:
        yield
    except LogitcaskError:
        raise
    except Exception as error:
        number = _system_number(error)
        if number is None or _named_file(error) not in (None, str(temporary)):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _described(error: BaseException | None) -> str | None:
    if error is None:
        return None
    number = _system_number(error)
    if number is None:
        return None
    reason = os.strerror(number)
    name = _named_file(error) or next(iter(str(error).splitlines()), type(error).__name__)
    return f"{name}; {_REMEDIES[number]}" if reason in name else f"{name}: {reason}; {_REMEDIES[number]}"


def _system_number(error: BaseException) -> int | None:
    """The number of a system error that has a remedy; None for others."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        text = str(error)
        found = _NUMBER.search(text)
        known = (known for words, known in _WITHOUT_NUMBER.items() if words in text)
        number = int(found[1]) if found else next(known, None)
    return number if number in _REMEDIES else None


def _named_file(error: BaseException) -> str | None:
    # A copy or a link fails because of its target, the second file.
    name = error.filename2 or error.filename if isinstance(error, OSError) else None
    if name is None:
        quoted = _NAME.search(str(error))
        return quoted[1] if quoted else None
    return os.fsdecode(name) if isinstance(name, bytes | os.PathLike) else str(name)
