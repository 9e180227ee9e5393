"""The measured speed of a teacher on this machine: the job's own scorer over a few windows."""

import time
from dataclasses import dataclass

import numpy as np

from logitcask.schemas.format.scheme import Scheme
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import load_scorer
from logitcask.teacher.text.packing import full_windows


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """A measured speed.

    Attributes:
        tokens_per_second: Speed of one worker on this machine including the choice of heads; median of the repeats.
        device: Model of the device.
        num_tokens: Positions in each repeat.
    """

    tokens_per_second: float
    device: str
    num_tokens: int


def measure(
    teacher: str,
    scheme: Scheme,
    window_tokens: int,
    *,
    num_windows: int = 2,
    num_repeats: int = 3,
    device: str = "auto",
) -> Pace:
    """Scores random windows with a teacher, once to warm up and then `num_repeats` times.

    Raises:
        TeacherError: The teacher cannot be loaded.
    """
    from logitcask.teacher.model.loading import resolve_device, resolve_dtype

    resolved = resolve_device(device)
    scorer = load_scorer(
        ScorerSpec(
            reference=teacher,
            device=resolved,
            dtype=resolve_dtype("auto", resolved),
            scheme=scheme,
            batch_tokens=max(window_tokens, 2048 if resolved == "cpu" else 32_768),
            window_tokens=window_tokens,
        )
    )
    # Uniformly drawn ids: a forward pass costs the same for any ids.
    token = np.random.default_rng(0).integers(0, scorer.vocab_size, num_windows * window_tokens, dtype=np.int32)
    windows = full_windows(token, window_tokens)
    scorer.score(windows.select(0, 1))
    seconds = []
    for _ in range(num_repeats):
        started_seconds = time.perf_counter()
        scorer.score(windows)
        seconds.append(time.perf_counter() - started_seconds)
    return Pace(
        tokens_per_second=windows.num_positions / float(np.median(seconds)),
        device=str(scorer.environment["device"]["model"]),
        num_tokens=windows.num_positions,
    )
