"""`annotate --publish-every`: snapshots of what is finished, while the job runs.

They are ordinary snapshots that are not complete. The job's last snapshot has the same shards
with and without them.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from logitcask.pipeline.execution.progress import Listener, Reading
from logitcask.schemas.errors import LogitcaskError

_logger = logging.getLogger(__name__)


@contextmanager
def publishing(interval_seconds: float | None, publish: Callable[[], Any]) -> Iterator[Sequence[Listener]]:
    """The listeners that publish at intervals while the context lasts; none without an interval."""
    if interval_seconds is None:
        yield ()
        return
    publisher = Publisher(interval_seconds, publish)
    try:
        yield (publisher,)
    finally:
        publisher.close()


class Publisher:
    """A listener of a job's progress that publishes at intervals, in a thread: a slow store does not stop the job.

    Args:
        interval_seconds: Minimum time from one start to the next.
        publish: Writes a snapshot of what is finished.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, interval_seconds: float, publish: Callable[[], Any], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_seconds, self._publish, self._clock = interval_seconds, publish, clock
        self._started_seconds = clock()
        self._thread: threading.Thread | None = None

    def __call__(self, reading: Reading) -> None:
        if self._clock() - self._started_seconds < self._interval_seconds or (self._thread and self._thread.is_alive()):
            return
        self._started_seconds = self._clock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Waits for a snapshot that is being written."""
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._publish()
        except LogitcaskError as error:
            # The shards are kept; the next snapshot lists them.
            _logger.warning("a partial snapshot could not be published: %s", error)
