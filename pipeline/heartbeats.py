"""What workers of this machine tell the driver while they run, through files in a local directory.

Beam's own metrics arrive late or never (not at all on Dask), and a unit can take minutes on a CPU. So each process
keeps one small file with how far it has come, and errors leave a file with their name, because a runner passes
them on as text. None of this decides anything about the data: storage is the truth.
"""

import json
import os
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from schemas import errors, storage
from schemas.errors import LogitcaskError

_WRITE_INTERVAL_SECONDS = 0.5
_STOP_FILE = "stop"

_lock = threading.Lock()
_done: dict[str, int] = {}
_written_seconds: dict[str, float] = {}


class StopRequested(Exception):  # noqa: N818 - not a fault
    """The driver asked for an end; raised between two batches, so that nothing is left half done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeats:
    """One attempt's directory of heartbeats; small and picklable, used by driver and workers alike.

    Attributes:
        directory: Local directory, or None where nobody listens. On a worker of another machine it does not exist,
            and nothing is written.
    """

    directory: str | None = None

    def advance(self, amount: int) -> None:
        """Counts work done by this process.

        Raises:
            StopRequested: The driver wants to end, or has ended.
        """
        if not self._is_heard():
            if self._key in _done:
                raise StopRequested
            return
        with _lock:
            _done[self._key] = _done.get(self._key, 0) + amount
            due = time.monotonic() - _written_seconds.get(self._key, 0) >= _WRITE_INTERVAL_SECONDS
        if due:
            self.flush()
        if (self._path / _STOP_FILE).exists():
            raise StopRequested

    def flush(self) -> None:
        """Writes this process's count now."""
        if not self._is_heard():
            return
        with _lock:
            done = _done.get(self._key, 0)
            _written_seconds[self._key] = time.monotonic()
        storage.replace(str(self._path / f"{os.getpid()}.count"), str(done).encode())

    def done(self) -> int:
        """Work counted by all processes so far."""
        return sum(int(file.read_bytes()) for file in self._path.glob("*.count"))

    def request_stop(self) -> None:
        """Asks all workers to stop at their next heartbeat."""
        (self._path / _STOP_FILE).touch()

    def note_failure(self, unit: str, error: BaseException) -> None:
        """Keeps an error for the driver, by name."""
        if not self._is_heard() or isinstance(error, StopRequested):
            return
        note = {
            "unit": unit,
            "error": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
        }
        storage.replace(str(self._path / f"{unit}.failure"), json.dumps(note).encode())

    def failures(self) -> list["Failure"]:
        """The errors that workers noted, by unit."""
        return [Failure(**json.loads(file.read_bytes())) for file in sorted(self._path.glob("*.failure"))]

    @property
    def _path(self) -> Path:
        assert self.directory is not None
        return Path(self.directory)

    @property
    def _key(self) -> str:
        # A forked worker must not go on with its parent's count.
        return f"{os.getpid()}:{self.directory}"

    def _is_heard(self) -> bool:
        return self.directory is not None and self._path.is_dir()


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """An error of a worker.

    Attributes:
        unit: Which unit it met.
        error: Its class.
        message, traceback: As text.
    """

    unit: str
    error: str
    message: str
    traceback: str

    def as_error(self) -> LogitcaskError | None:
        """The named error again, or None if it was not one of ours."""
        kind = getattr(errors, self.error, None)
        if isinstance(kind, type) and issubclass(kind, LogitcaskError):
            return kind(self.message)
        return None
