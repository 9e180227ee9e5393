"""The teacher scores a unit while another thread encodes what is scored: the accelerator never waits for zstd.

At most two batches wait between them, so memory does not grow with the unit's length. The encoder sees batches in
order, one after the other: the bytes are those of doing everything in turn.
"""

import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from logitcask.pipeline.annotation.encoder import UnitEncoder
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.schemas.errors import MemoryExhaustedError
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.stats.vocabulary_statistics import VocabularyStatistics
from logitcask.teacher.scoring.protocol import Scorer
from logitcask.teacher.text.packing import batches

# Vocabulary statistics are measured in every 64th window of a shard, from its first on.
MEASURED_WINDOW_INTERVAL = 64

_logger = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Scoring:
    """What scoring a unit took.

    Attributes:
        batch_tokens: Maximum positions of a forward pass at the end; memory ran out at more.
        forward_seconds: Spent in the teacher, heads included.
        num_out_of_memory: How often memory ran out.
        num_halvings: How often after that the pieces of a single window were halved.
    """

    batch_tokens: int
    forward_seconds: float = 0.0
    num_out_of_memory: int = 0
    num_halvings: int = 0

    def environment(self) -> dict[str, Any]:
        """What it adds to a unit's numeric environment: nothing, unless memory ran out."""
        if not self.num_out_of_memory:
            return {}
        halvings = {"num_halvings": self.num_halvings} if self.num_halvings else {}
        return {"batch_tokens": self.batch_tokens, "num_out_of_memory": self.num_out_of_memory, **halvings}


def score_windows(
    windows: Windows, scorer: Scorer, batch_tokens: int, heartbeats: Heartbeats, encoder: UnitEncoder
) -> Scoring:
    """Scores all windows batch by batch, with a heartbeat after each, and passes them on to the encoder.

    Where memory runs out, the rest of the unit is scored in batches of half as many positions, down to one window;
    then in shorter sequences of its parts, and fewer rows of logits at a time.

    Raises:
        NonFiniteError: The teacher gave NaN or infinity.
        MemoryExhaustedError: A single window does not fit into memory.
    """
    scoring = Scoring(batch_tokens=batch_tokens)
    measured_T = measured_rows(windows)
    start = 0
    last_seconds = time.perf_counter()
    scorer.num_halvings = 0
    while start < windows.num_windows:
        stop = start + next(batches(windows.window_offsets[start:], scoring.batch_tokens))[1]
        batch = windows.select(start, stop)
        rows = slice(windows.window_offsets[start], windows.window_offsets[stop])
        forward_seconds = scoring.forward_seconds
        scored = _try_to_score(scorer, batch, measured_T[rows], scoring)
        if scored is None:
            continue
        encoder.add(batch, *scored)
        start = stop
        before_seconds, last_seconds = last_seconds, time.perf_counter()
        heartbeats.spend(last_seconds - before_seconds, forward_seconds=scoring.forward_seconds - forward_seconds)
        heartbeats.advance(batch.num_positions)
    return scoring


def measured_rows(windows: Windows) -> np.ndarray:
    """Which rows get vocabulary statistics, bool [T]."""
    return windows.window_index() % MEASURED_WINDOW_INTERVAL == 0


def _try_to_score(
    scorer: Scorer, batch: Windows, measured_T: np.ndarray, scoring: Scoring
) -> tuple[Targets, VocabularyStatistics] | None:
    """The batch's targets; None where memory ran out and smaller batches or pieces are to be tried."""
    started_seconds = time.perf_counter()
    try:
        return scorer.score_and_measure(batch, measured_T)
    except MemoryExhaustedError as error:
        _halve(scorer, batch, scoring, error)
        return None
    finally:
        scoring.forward_seconds += time.perf_counter() - started_seconds


def _halve(scorer: Scorer, batch: Windows, scoring: Scoring, error: MemoryExhaustedError) -> None:
    """Halves the batches, or the pieces of a window, for the rest of the unit.

    Raises:
        MemoryExhaustedError: Neither can be halved.
    """
    scoring.num_out_of_memory += 1
    _logger.debug("%s", error)
    if batch.num_windows > 1:
        # From what this batch really was: halving a maximum that was never reached would change nothing.
        scoring.batch_tokens = max(1, min(scoring.batch_tokens, batch.num_positions) // 2)
        _logger.warning("out of memory: batches of %d tokens for the rest of this unit", scoring.batch_tokens)
        return
    if not error.can_halve:
        raise MemoryExhaustedError(
            f"a window of {batch.num_positions} tokens does not fit into memory, alone and in the smallest pieces; "
            "use a smaller --window or --dtype bfloat16 with another --out, or spread the teacher by --device-map auto"
        ) from error
    scoring.num_halvings += 1
    scorer.num_halvings = scoring.num_halvings
    _logger.warning("out of memory in one window: its parts are scored in smaller pieces for the rest of this unit")
