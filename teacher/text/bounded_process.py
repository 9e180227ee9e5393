"""Calls a function in a child process, within a bound of time and memory: for programs that come with a model.

A chat template is such a program: it may loop, recurse or produce gigabytes, also within one operation, which no check
inside this process could stop. The child is forked once and serves all later calls; one that is killed is replaced at
the next call.
"""

import os
import resource
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from logitcask.schemas.errors import LogitcaskError

_LOCAL_STATUS = Path("/proc/self/status")


class BoundExceededError(LogitcaskError):
    """A call used too much time or memory, or ended its process."""


class CallFailedError(LogitcaskError):
    """The function raised an error; the message has its class and text."""


class BoundedProcess:
    """A function in a child process.

    Args:
        function: Gets and returns picklable values. It runs in a copy of this process, without its other threads, so
            it must not wait for them.
        cpu_seconds: Bound of the processor time of a call. The clock on the wall does not count, because a machine
            may be busy or stopped; it only ends a call that waits for something, after thirty times as long.
        memory_bytes: Bound of what the child may take beyond its memory at the start.
    """

    def __init__(self, function: Callable[..., Any], *, cpu_seconds: float, memory_bytes: int) -> None:
        self._function, self._cpu_seconds, self._memory_bytes = function, cpu_seconds, memory_bytes
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def call(self, *arguments: Any) -> Any:
        """What the function returns.

        Raises:
            BoundExceededError: The call used too much time or memory, or ended its process.
            CallFailedError: The function raised an error.
        """
        with self._lock:
            # A forked copy of this process needs a child of its own.
            if self._child is None or self._child.parent_id != os.getpid():
                self._child = _Child(self._function, self._cpu_seconds, self._memory_bytes)
            try:
                done, value = self._child.ask(arguments, 30 * self._cpu_seconds)
            except (EOFError, OSError) as error:
                self._child.end()
                self._child = None
                raise BoundExceededError(
                    f"it used more than {self._cpu_seconds:g} s or {self._memory_bytes / 1e6:,.0f} MB, or ended its "
                    "process"
                ) from error
        if not done:
            raise CallFailedError(value)
        return value


class _Child:
    def __init__(self, function: Callable[..., Any], cpu_seconds: float, memory_bytes: int) -> None:
        self.parent_id = os.getpid()
        self._connection, theirs = Pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of threads: the child uses nothing that another thread could hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process_id = os.fork()
        if self._process_id == 0:
            try:
                _serve(theirs, function, cpu_seconds, memory_bytes)
            finally:
                os._exit(1)
        theirs.close()
        self._finalizer = weakref.finalize(self, _end, self._process_id, self._connection, self.parent_id)

    def ask(self, arguments: tuple[Any, ...], wall_seconds: float) -> tuple[bool, Any]:
        self._connection.send(arguments)
        if not self._connection.poll(wall_seconds):
            raise TimeoutError
        return self._connection.recv()

    def end(self) -> None:
        self._finalizer()


def _end(process_id: int, connection: Connection, parent_id: int) -> None:
    connection.close()
    if os.getpid() == parent_id:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(process_id, signal.SIGKILL)
            os.waitpid(process_id, 0)


def _serve(connection: Connection, function: Callable[..., Any], cpu_seconds: float, memory_bytes: int) -> None:
    """Answers until the parent has closed its end, by choice or because it died."""
    # Other files of the parent: among them the ends of other children, which would never see their parent's death.
    keep = connection.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    bound = _data_bytes() + memory_bytes
    bound = bound if most == resource.RLIM_INFINITY else min(bound, most)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            arguments = connection.recv()
        except (EOFError, OSError):
            return
        # This signal ends the process, also in the middle of one operation.
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            answer = True, function(*arguments)
        except MemoryError:
            return
        except Exception as error:
            answer = False, f"{type(error).__name__}: {error}"[:1000]
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send(answer)


def _data_bytes() -> int:
    """The memory of this process that RLIMIT_DATA counts; 0 where that is unknown, as nothing enforces it there."""
    try:
        lines = _LOCAL_STATUS.read_text().splitlines()
    except OSError:
        return sys.maxsize // 2
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData:"))
