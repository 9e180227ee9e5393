"""One attempt of a wave: Beam in a daemon thread, progress and signals in the caller's."""

import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from logitcask.pipeline.runners.settings import RunnerSettings
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.pipeline.units.leases import DriverHungError
from logitcask.schemas.errors import LogitcaskError

if TYPE_CHECKING:
    import apache_beam as beam

_POLL_SECONDS = 0.2
# After a worker process died, the runner and the other workers have this long to make progress or to end.
_DEATH_GRACE_SECONDS = 30.0
_KEPT = "Finished units are kept: run the same command again to resume"
_logger = logging.getLogger(__name__)


class UnitFailedError(LogitcaskError):
    """A unit failed with an error that is not the input's fault; finished units are kept."""


class BackgroundRun:
    """A wave that runs in a daemon thread, so that signals reach the main thread immediately.

    Attributes:
        error: What ended it; None while it runs or if it succeeded.
        deaths: A message for each local worker process that died.
        can_be_retried: Whether another run may start: not while a thread of this process hangs.
    """

    def __init__(self, units: Sequence[Any], transform: "beam.PTransform", settings: RunnerSettings) -> None:
        self.error: BaseException | None = None
        self.deaths: list[str] = []
        self.can_be_retried = True
        self._progress_seconds = time.monotonic()
        self._progress_done = 0
        self._thread = threading.Thread(target=self._run, args=(units, transform, settings), daemon=True)
        self._thread.start()

    def wait(self, heartbeats: Heartbeats, on_poll: Callable[[], None]) -> bool:
        """Waits until the run ends; calls `on_poll` a few times a second; True if the user interrupted it.

        Ctrl-C and SIGTERM let the workers finish their batch; a second one raises KeyboardInterrupt.
        """
        interrupted = False
        with _sigterm_as_interrupt():
            while self._thread.is_alive():
                try:
                    self._thread.join(_POLL_SECONDS)
                    on_poll()
                    if self.deaths or heartbeats.failures():
                        heartbeats.request_drain()
                    if self._is_stuck(heartbeats):
                        break
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted = True
                    heartbeats.request_stop()
                    _logger.warning(
                        "stopping after the current batch (interrupt again to stop now); the same command resumes"
                    )
        return interrupted

    def named_error(self, heartbeats: Heartbeats) -> LogitcaskError:
        """What ended the run: an error as the worker reported it, else what the runner raised."""
        assert self.error is not None
        if isinstance(self.error, LogitcaskError):
            return self.error
        failures = heartbeats.failures()
        if not failures:
            # After a death, neither the runner's error nor those of the drained workers are the cause.
            error = ChildProcessError(self.deaths[0]) if self.deaths else self.error
            return UnitFailedError(
                f"a worker died or could not be reached ({type(error).__name__}: {_last_line(error)}). {_KEPT}"
            )
        failure = failures[0]
        named = failure.as_error()
        if named is not None:
            return named
        _logger.debug("%s", failure.traceback)
        return UnitFailedError(f"unit {failure.unit}: {failure.error}: {failure.message}. {_KEPT}")

    def _is_stuck(self, heartbeats: Heartbeats) -> bool:
        """Whether this run will never end: a worker died and the runner has not noticed, or a unit hangs in here."""
        if any(failure.error == DriverHungError.__name__ for failure in heartbeats.failures()):
            self.error, self.can_be_retried = DriverHungError(), False
            return True
        done = heartbeats.done()
        if not self.deaths or done != self._progress_done:
            self._progress_seconds, self._progress_done = time.monotonic(), done
        if time.monotonic() - self._progress_seconds < _DEATH_GRACE_SECONDS:
            return False
        self.error = self.error or ChildProcessError(self.deaths[0])
        return True

    def _run(self, units: Sequence[Any], transform: "beam.PTransform", settings: RunnerSettings) -> None:
        # A process takes seconds to start, so there are no more of them than units. At least two: a single one would
        # be this process, and a unit that kills its worker must not kill the driver.
        if settings.num_workers > 1:
            settings = dataclasses.replace(settings, num_workers=max(2, min(settings.num_workers, len(units))))
        try:
            from logitcask.pipeline.runners.run_stage import run_stage

            run_stage(units, transform, settings, on_worker_death=self.deaths.append)
        except BaseException as error:
            self.error = error


def not_stored(num_units: int, num_submitted: int) -> UnitFailedError:
    """The error of a run that succeeded without all its units in storage: storage is the truth."""
    return UnitFailedError(
        f"the runner reported success, but {num_units} of {num_submitted} units are not in storage. {_KEPT}"
    )


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else "no message"


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Handles SIGTERM as Ctrl-C while the context lasts (Python delivers signals to the main thread only)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
