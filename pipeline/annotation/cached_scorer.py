"""The scorer of a worker process: loaded once, shared by all its units."""

import threading
from dataclasses import replace

from logitcask.teacher.scoring.protocol import Scorer, ScorerSpec
from logitcask.teacher.scoring.registry import SCORERS, Loader, load_scorer

_lock = threading.Lock()
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
