"""How far a stage is where workers cannot be heard: on other machines, storage alone tells what is finished."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from logitcask.schemas.errors import StorageError

_INTERVAL_SECONDS = 30.0
# A listing of very many units takes its time: it may have this share of the driver's.
_MOST_TIME = 0.05


class StorageProgress:
    """Counts finished units now and then; whole units, so it lags behind by those that are being done.

    Args:
        units: What is being done.
        finished: Names of those of some units that storage has.
        size: How much a unit counts.
        clock: Seconds that never go back.
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
        """How much storage had when it was last asked; asks again if that was long ago."""
        if self._clock() >= self._next_seconds:
            started_seconds = self._clock()
            # The workers' own errors decide what becomes of the job; this is only for people.
            with suppress(StorageError):
                names = self._finished(self._units)
                self._done = sum(self._size(unit) for unit in self._units if unit.name in names)
            took_seconds = self._clock() - started_seconds
            self._next_seconds = self._clock() + max(_INTERVAL_SECONDS, took_seconds / _MOST_TIME)
        return self._done
