"""The scorer of a worker process: loaded once, shared by all its units, and used by one unit at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from logitcask.teacher.scoring.protocol import Scorer, ScorerSpec
from logitcask.teacher.scoring.registry import SCORERS, Loader, load_scorer

_lock = threading.Lock()
_use = threading.Lock()
_loaded: dict[tuple[Loader | None, ScorerSpec], Scorer] = {}


def cached_scorer(spec: ScorerSpec) -> Scorer:
    """This process's scorer, ready for the calling thread. It is loaded once; another spec replaces it.

    Raises:
        UsageError, TeacherError: It cannot be loaded.
    """
    # Another batch size is no reason to load a teacher again.
    key = SCORERS.get(spec.kind), replace(spec, batch_tokens=0)
    with _lock:
        if key not in _loaded:
            _loaded.clear()
            _loaded[key] = load_scorer(spec)
        scorer = _loaded[key]
    scorer.batch_tokens = spec.batch_tokens
    # For every unit: Beam has many threads.
    scorer.prepare_thread()
    return scorer


@contextmanager
def exclusive_scorer(spec: ScorerSpec) -> Iterator[Scorer]:
    """This process's scorer, for the calling thread alone while the context lasts; other threads wait.

    Two units that run on one model at once get each other's targets, so no runner is trusted to start only one.

    Raises:
        As `cached_scorer`.
    """
    with _use:
        yield cached_scorer(spec)
