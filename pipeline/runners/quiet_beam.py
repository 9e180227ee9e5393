"""Keeps Beam's output off the terminal, and reports the death of its local worker processes."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType


@contextmanager
def quiet_beam(on_worker_death: Callable[[str], None]) -> Iterator[None]:
    """Suppresses Beam's stack traces and notes on long bundles, because the job reports the errors.

    Args:
        on_worker_death: Called with a message when a local worker process dies.
    """
    logger = logging.getLogger("apache_beam")
    level = logger.level
    if not isinstance(threading.excepthook, _ThreadHook):
        threading.excepthook = _ThreadHook(threading.excepthook)
    hook = threading.excepthook
    hook.on_worker_death = on_worker_death
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
        hook.on_worker_death = lambda _: None


class _ThreadHook:
    """Handles the errors that end Beam's threads when a worker process dies; passes on all others.

    It stays installed after a stage, because such threads may outlive the stage.
    """

    def __init__(self, otherwise: Callable[[threading.ExceptHookArgs], object]) -> None:
        self.on_worker_death: Callable[[str], None] = lambda _: None
        self._otherwise = otherwise

    def __call__(self, arguments: threading.ExceptHookArgs) -> None:
        # Beam waits for each worker process in a thread of this name, which ends with an error when the process dies.
        if arguments.thread is not None and arguments.thread.name == "run_worker":
            self.on_worker_death(str(arguments.exc_value))
        elif not _passes_through_beam(arguments.exc_traceback):
            self._otherwise(arguments)


def _passes_through_beam(trace: TracebackType | None) -> bool:
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").startswith("apache_beam."):
            return True
        trace = trace.tb_next
    return False
