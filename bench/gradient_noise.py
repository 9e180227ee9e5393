"""Noise of the student's gradient with sampled targets: threshold sampling and RS-KD at equal size.

Let p be the teacher, s the student, and t a sampled target with expectation p. The gradient of the cross-entropy at a
hidden state is Wᵀ(s − t); full distillation has g = Wᵀ(s − p). So the noise is Wᵀ(p − t) for any student. It is given
as Σ |Wᵀ(p − t)|² / Σ |g|² over positions. The student of g is the teacher with standard normal noise added to its
logits.

Shapes: H positions, D hidden, V ids.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from capture import SAMPLING, Capture
from ours import SCHEMES, ShardEncoding
from scoring import Teacher, load_teacher

from logitcask.schemas.format.targets import TailSample, Targets

ROWS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientNoise:
    """Noise relative to the squared gradient.

    Attributes:
        num_positions: H.
        threshold_sampling: Noise of threshold sampling with θ = 1/36.
        threshold_bytes: Size of these targets in bytes per token.
        random_sampling: Noise of `random_draws` draws from the full distribution.
        random_draws: Number of draws that take the same number of bytes, interpolated.
        by_draws: Number of draws to (bytes per token, noise).
    """

    num_positions: int
    threshold_sampling: float
    threshold_bytes: float
    random_sampling: float
    random_draws: float
    by_draws: dict[int, tuple[float, float]]


def gradient_noise(found: Capture, teacher: str) -> GradientNoise:
    """The noise at the rows with a stored hidden state; sizes are those of all rows."""
    model = load_teacher(teacher)
    mean_HD, square = _mean_rows(model, torch.from_numpy(found.hidden))

    def noise(targets: Targets) -> float:
        errors_HD = mean_HD - _sampled_rows(model.head.weight.detach(), targets, found.hidden_rows)
        return float(errors_HD.square().sum()) / square

    threshold = found.sampled("threshold-sampling")
    threshold_bytes = _bytes_per_token(found, "θ = 1/36", threshold)
    by_draws = {}
    for num_draws in (12, 25, 50):
        drawn = _fewer_draws(found.sampled("random-sampling"), num_draws)
        by_draws[num_draws] = (_bytes_per_token(found, "50 draws", drawn), noise(drawn))
    sizes, noises = np.array(list(by_draws.values())).T
    # Noise is inversely proportional to the number of draws; size is nearly linear in it.
    random_draws = float(np.interp(threshold_bytes, sizes, list(by_draws)))
    per_draw = float(np.mean(noises * np.array(list(by_draws))))
    return GradientNoise(
        num_positions=len(found.hidden_rows),
        threshold_sampling=noise(threshold),
        threshold_bytes=threshold_bytes,
        random_sampling=per_draw / random_draws,
        random_draws=random_draws,
        by_draws=by_draws,
    )


def _mean_rows(model: Teacher, hidden_HD: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Wᵀp at each position, and Σ |g|²."""
    rng = torch.Generator().manual_seed(0)
    means, square = [], 0.0
    weight_VD = model.head.weight.detach()
    for start in range(0, len(hidden_HD), ROWS):
        logits_TV = model.logits(hidden_HD[start : start + ROWS])
        means.append(logits_TV.softmax(-1) @ weight_VD)
        student_TV = logits_TV + torch.randn(logits_TV.shape, generator=rng)
        square += float((student_TV.softmax(-1) @ weight_VD - means[-1]).square().sum())
    return torch.cat(means), square


def _sampled_rows(weight_VD: torch.Tensor, targets: Targets, rows: np.ndarray) -> torch.Tensor:
    """Wᵀt at some rows: the exact head, and an equal share of the tail for each draw."""
    sample = targets.tail_samples[0]
    found = []
    for row in rows.tolist():
        head = slice(*targets.head_offsets[row : row + 2])
        drawn = sample.ids[slice(*sample.offsets[row : row + 2])]
        share = np.exp(targets.log_tail[row]) / max(1, len(drawn))
        ids = np.concatenate([targets.head_ids[head], drawn]).astype(np.int64)
        masses = np.concatenate([np.exp(targets.head_log_probs[head]), np.full(len(drawn), share, np.float32)])
        found.append(torch.from_numpy(masses).float() @ weight_VD[torch.from_numpy(ids)])
    return torch.stack(found)


def _fewer_draws(targets: Targets, num_draws: int) -> Targets:
    """A random choice of `num_draws` of the independent draws of each row."""
    ids = targets.tail_samples[0].ids.reshape(-1, SAMPLING["random-sampling"].draws)
    if num_draws < ids.shape[1]:
        ids = np.random.default_rng(0).permuted(ids, axis=1)[:, :num_draws]
    flat = np.sort(ids, axis=1).ravel()
    offsets = np.arange(0, len(flat) + 1, num_draws)
    return replace(targets, tail_samples=(TailSample(ids=flat, offsets=offsets),))


def _bytes_per_token(found: Capture, scheme: str, targets: Targets) -> float:
    assert scheme in SCHEMES
    return len(ShardEncoding(found, scheme).encode(found.windows.token, targets)) / found.windows.num_positions
