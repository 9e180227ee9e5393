"""Scorers by name. A row names a loader; its module is imported on the first call, so this file needs no engine.

To add an engine: a module with a function of a `ScorerSpec` that returns a `Scorer`, and a row here.
"""

from collections.abc import Callable
from importlib import import_module

from logitcask.schemas.errors import UsageError
from logitcask.teacher.scoring.protocol import Scorer, ScorerSpec

Loader = Callable[[ScorerSpec], Scorer]


def _imported(path: str) -> Loader:
    """The loader `module:function`."""
    module, _, function = path.partition(":")
    return lambda spec: getattr(import_module(module), function)(spec)


SCORERS: dict[str, Loader] = {"huggingface": _imported("logitcask.teacher.scoring.huggingface:load")}


def load_scorer(spec: ScorerSpec) -> Scorer:
    """Loads the teacher as the spec says.

    Raises:
        UsageError: The kind of scorer is unknown, or its settings are invalid.
        TeacherError: The teacher cannot be loaded.
    """
    if spec.kind not in SCORERS:
        raise UsageError(f"scorer {spec.kind!r} is unknown; choose {', '.join(SCORERS)}")
    return SCORERS[spec.kind](spec)
