"""How noisy the student's gradient is where the teacher was sampled: threshold sampling beside RS-KD, at equal bytes.

With p the teacher and t a sampled target whose expectation is p, the gradient of the cross-entropy at a hidden state is
Wᵀ(s − t) where full distillation has g = Wᵀ(s − p), s being the student. So the noise is Wᵀ(p − t), whoever the student
is; it is given as Σ |Wᵀ(p − t)|² / Σ |g|² over positions, for a student that is the teacher with standard normal noise
on its logits.

Shapes: H positions, D hidden, V ids.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from capture import SAMPLING, Capture
from ours import SCHEMES, Ours
from scoring import Teacher, load_teacher

from logitcask.schemas.format.targets import TailSample, Targets

ROWS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientNoise:
    """Noise as a share of the gradient's square.

    Attributes:
        num_positions: H.
        threshold_sampling: θ = 1/36.
        threshold_bytes: What that takes, bytes a token.
        random_sampling: Draws from the whole distribution, as many as fit into the same bytes.
        random_draws: How many those are, interpolated.
        by_draws: Draws to (bytes a token, noise).
    """

    num_positions: int
    threshold_sampling: float
    threshold_bytes: float
    random_sampling: float
    random_draws: float
    by_draws: dict[int, tuple[float, float]]


def gradient_noise(found: Capture, teacher: str) -> GradientNoise:
    """The figures of the rows whose hidden states were kept; bytes of all rows."""
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
    # Noise falls as one over the draws; bytes are nearly straight in their number.
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
    """Wᵀp of each position, and Σ |g|²."""
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
    """Wᵀt of some rows: the exact head, and for each draw an equal share of the tail."""
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
    """So many of each row's independent draws, chosen by chance."""
    ids = targets.tail_samples[0].ids.reshape(-1, SAMPLING["random-sampling"].draws)
    if num_draws < ids.shape[1]:
        ids = np.random.default_rng(0).permuted(ids, axis=1)[:, :num_draws]
    flat = np.sort(ids, axis=1).ravel()
    offsets = np.arange(0, len(flat) + 1, num_draws)
    return replace(targets, tail_samples=(TailSample(ids=flat, offsets=offsets),))


def _bytes_per_token(found: Capture, scheme: str, targets: Targets) -> float:
    assert scheme in SCHEMES
    return len(Ours(found, scheme).encode(found.windows.token, targets)) / found.windows.num_positions
