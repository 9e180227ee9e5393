"""Fault points: places in the code where a test can make a process die, fail or hang.

Nothing happens unless `LOGITCASK_FAULTS` names a directory when the process starts. A file in that directory, named
after a point, is an order for the next process that reaches the point: `ACTION [PATTERN] [always]`. The actions are

    kill    the process dies of SIGKILL
    full    the disk is full (ENOSPC)
    hang    the thread blocks forever

The pattern (as in a shell) selects units or files. The first process that removes the order's file executes the order,
once, unless it says `always`; a test can therefore give orders to workers that are already running. Every point that
is reached adds one line to the directory's `log`.
"""

import errno
import fnmatch
import os
import signal
import threading
from pathlib import Path
from typing import Literal

Point = Literal[
    "read",
    "forward",
    "encode",
    "written",
    "committed",
    "recorded",
    "checkpoint begun",
    "checkpoint sealed",
    "checkpoint named",
]

_DIRECTORY = os.environ.get("LOGITCASK_FAULTS")


def reach(point: Point, name: str) -> None:
    """Reports that this process has reached a point with a unit or a file; does nothing outside of tests.

    Raises:
        OSError: ENOSPC, if a test ordered it.
    """
    if _DIRECTORY is not None:
        _execute_order(Path(_DIRECTORY), point, name)


def _execute_order(directory: Path, point: Point, name: str) -> None:
    _append_line(directory / "log", f"{point} {name} {os.getpid()}\n")
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


def _append_line(log: Path, line: str) -> None:
    # Appending a short line is atomic and, unlike a buffered write, survives the SIGKILL that may follow.
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
