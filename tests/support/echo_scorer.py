"""A teacher that loads at once, an exact fake: it predicts that each token is followed by itself.

Tests of dying workers start many processes, and importing `transformers` in each would take most of their time.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.stats.vocabulary_statistics import VocabularyStatistics
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import SCORERS

_SAME_PROBABILITY = 0.75


class EchoScorer:
    """Gives three quarters to a row's own token and shares the rest among all others."""

    vocab_size = 1000
    num_halvings = 0

    def __init__(self, spec: ScorerSpec) -> None:
        self.batch_tokens = spec.batch_tokens

    @property
    def environment(self) -> dict[str, Any]:
        return {"device": "cpu", "num_threads": 1}

    def prepare_thread(self) -> None:
        pass

    def score(self, windows: Windows) -> Targets:
        return self.score_and_measure(windows, np.zeros(windows.num_positions, dtype=bool))[0]

    def score_and_measure(self, windows: Windows, measured_T: np.ndarray) -> tuple[Targets, VocabularyStatistics]:
        assert windows.has_target().all(), "a corpus of plain documents"
        rows = windows.num_positions
        log_same, log_others = math.log(_SAME_PROBABILITY), math.log(1 - _SAME_PROBABILITY)
        log_other = log_others - math.log(self.vocab_size - 1)
        log_next = np.where(windows.next_token() == windows.token, log_same, log_other)
        targets = Targets(
            head_ids=windows.token,
            head_log_probs=np.full(rows, log_same, np.float32),
            head_offsets=np.arange(rows + 1),
            log_tail=np.full(rows, log_others, np.float32),
            log_next=np.where(windows.has_label(), log_next, np.nan).astype(np.float32),
            entropy=np.full(
                rows, -_SAME_PROBABILITY * log_same - (1 - _SAME_PROBABILITY) * log_other, dtype=np.float32
            ),
            top1_ids=windows.token,
        )
        return targets, VocabularyStatistics(rows=int(measured_T.sum()))


def install() -> None:
    """Makes this the teacher of all units of this process, whatever teacher the job names."""
    SCORERS["huggingface"] = EchoScorer


def replace_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for one test."""
    monkeypatch.setitem(SCORERS, "huggingface", EchoScorer)


def processes_with_it(directory: Path, *imports: str) -> str:
    """A PYTHONPATH with which processes install this teacher: Python imports the module `sitecustomize` at start.

    Args:
        directory: Gets that module.
        imports: Further modules to import at start, before a unit waits for them.
    """
    directory.mkdir(exist_ok=True)
    names = "".join(f"import {name}\n" for name in (*imports, "echo_scorer"))
    (directory / "sitecustomize.py").write_text(f"{names}\necho_scorer.install()\n")
    others = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    return os.pathsep.join([str(directory), str(Path(__file__).parent), *others])
