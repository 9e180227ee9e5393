"""Progress of a stage whose workers send no heartbeats: on other machines, only storage shows what is finished."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from logitcask.schemas.errors import StorageError

_INTERVAL_SECONDS = 30.0
# Listing very many units is slow: it may take at most this share of the driver's time.
_MAX_TIME_SHARE = 0.05


class StorageProgress:
    """Counts finished units every half a minute; units in progress do not count.

    Args:
        units: Units of the wave.
        finished: Returns the names of those of the given units that storage has.
        size: Returns how much a unit counts.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        units: Sequence[Any],
        finished: Callable[[Sequence[Any]], set[str]],
        size: Callable[[Any], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._units, self._finished, self._size, self._clock = units, finished, size, clock
        self._done = 0
        self._next_seconds = clock() + _INTERVAL_SECONDS

    def done(self) -> int:
        """How much storage had at the last listing; lists again when the interval has passed."""
        if self._clock() >= self._next_seconds:
            started_seconds = self._clock()
            # Only the workers' own errors decide whether the job fails; this is for display.
            with suppress(StorageError):
                names = self._finished(self._units)
                self._done = sum(self._size(unit) for unit in self._units if unit.name in names)
            took_seconds = self._clock() - started_seconds
            self._next_seconds = self._clock() + max(_INTERVAL_SECONDS, took_seconds / _MAX_TIME_SHARE)
        return self._done
