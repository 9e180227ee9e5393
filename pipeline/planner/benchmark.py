"""The measured speed of a teacher on this machine: the job's own scorer over a few windows."""

import time
from dataclasses import dataclass

import numpy as np

from logitcask.schemas.format.scheme import Scheme
from logitcask.schemas.format.targets import Kind, Part, Windows
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import load_scorer


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
        )
    )
    windows = random_windows(scorer.vocab_size, num_windows, window_tokens)
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


def random_windows(vocab_size: int, num_windows: int, window_tokens: int) -> Windows:
    """Full windows of one part each with uniformly drawn ids: a forward pass costs the same for any text."""
    num_positions = num_windows * window_tokens
    return Windows(
        token=np.random.default_rng(0).integers(0, vocab_size, num_positions, dtype=np.int32),
        kind=np.full(num_positions, Kind.TRAIN, np.uint8),
        part=np.repeat(np.arange(num_windows, dtype=np.int32), window_tokens),
        window_offsets=np.arange(num_windows + 1, dtype=np.int64) * window_tokens,
        parts=tuple(Part(id=str(n), source="random", offset=0) for n in range(num_windows)),
    )
