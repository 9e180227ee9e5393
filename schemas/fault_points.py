"""Places where a test can make a process die, fail or hang, exactly there.

Nothing happens unless `LOGITCASK_FAULTS` names a directory when the process starts. A file in it named after a point
is an order for whoever reaches that point next: `ACTION [PATTERN] [always]`, where the action is

    kill    the process dies of SIGKILL
    full    the disk is full (ENOSPC)
    hang    the thread never goes on

and the pattern (as in a shell) says for which units or files. An order is carried out once, by the first to take its
file away, unless it says `always`. So a test gives orders to workers that are running already. What is reached is
also written down, one line each, in the directory's `log`.
"""

import errno
import fnmatch
import os
import signal
import threading
from pathlib import Path
from typing import Literal

Point = Literal["read", "forward", "encode", "written", "committed", "recorded"]

_DIRECTORY = os.environ.get("LOGITCASK_FAULTS")


def reach(point: Point, name: str) -> None:
    """Says that this process has got so far with a unit or a file; usually does nothing at all.

    Raises:
        OSError: ENOSPC, if a test ordered it.
    """
    if _DIRECTORY is not None:
        _carry_out(Path(_DIRECTORY), point, name)


def _carry_out(directory: Path, point: Point, name: str) -> None:
    _write_down(directory / "log", f"{point} {name} {os.getpid()}\n")
    order = directory / point
    try:
        action, *rest = order.read_text().split()
        pattern = next((word for word in rest if word != "always"), "*")
        if not fnmatch.fnmatchcase(name, pattern):
            return
        if "always" not in rest:
            order.unlink()
    except FileNotFoundError:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    threading.Event().wait()


def _write_down(log: Path, line: str) -> None:
    # Appending a short line is atomic; unlike a buffered file it survives the SIGKILL that may follow.
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
