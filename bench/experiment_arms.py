"""The arms of the quality experiment: datasets from one recorded teacher, and the losses trained on them."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from experiment_teacher import CACHE, RecordedTeacher

from logitcask.schemas import DatasetWriter
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.fingerprints import fingerprint
from logitcask.schemas.format.draws import window_uniforms
from logitcask.schemas.format.ragged import offsets_from_lengths
from logitcask.schemas.format.scheme import (
    RandomSamplingScheme,
    Scheme,
    ThresholdSamplingScheme,
    ThresholdScheme,
    TopKScheme,
)
from logitcask.schemas.format.targets import TailSample, Targets, Windows
from logitcask.schemas.format.writer import encode_shard
from logitcask.student.data.collator import Batch
from logitcask.student.losses.full_kl import TeacherLogits
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.teacher.scoring.heads import DeviceTargets, select_heads

SHARD_WINDOWS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One way to learn from the teacher.

    Attributes:
        name: Its name in the table.
        scheme: Name of the dataset it reads; None: the recorded teacher itself.
        loss: The loss that it minimizes.
        alpha: Weight of the loss; 0: cross-entropy with the text.
        published: The language-model loss that Anshumann et al. (ACL 2025) report for its counterpart, 3B → 300M.
        published_share: The share of the gain of full distillation over cross-entropy that they report.
    """

    name: str
    scheme: str | None
    loss: LossSettings = field(default_factory=LossSettings)
    alpha: float = 1.0
    published: float | None = None
    published_share: float | None = None


ARMS = (
    Arm(name="cross-entropy", scheme="top-12", alpha=0.0, published=2.81),
    Arm(name="top-12 renormalized", scheme="top-12", loss=LossSettings(tail="renormalize"), published=2.87),
    Arm(name="top-50 renormalized", scheme="top-50", loss=LossSettings(tail="renormalize"), published=2.80),
    Arm(name="top-50 + other", scheme="top-50", published=2.77, published_share=0.59),
    Arm(
        name="top-50, residual to label",
        scheme="top-50",
        loss=LossSettings(tail="residual"),
        published=2.76,
        published_share=0.83,
    ),
    Arm(name="top-50 ∪ {label} + other", scheme="top-50", loss=LossSettings(tail="label")),
    Arm(name="adaptive + other (default)", scheme="adaptive"),
    Arm(
        name="RS-KD, 12 unique ids",
        scheme="random-sampling",
        loss=LossSettings(tail="sample"),
        published=2.75,
        published_share=1.0,
    ),
    Arm(name="threshold-sampled", scheme="threshold-sampling", loss=LossSettings(tail="sample")),
    Arm(name="full distillation, live", scheme=None, published=2.75, published_share=1.0),
)


class RecordedLogits:
    """A recorded teacher instead of a live one, for the dataset of one split."""

    def __init__(self, teacher: RecordedTeacher, split: str) -> None:
        self._teacher, self._split = teacher, split

    @property
    def vocab_size(self) -> int:
        return self._teacher.teacher.vocab_size

    def logits_of(self, batch: Batch) -> TeacherLogits:
        windows, length = self._teacher.windows[self._split], batch["input_ids"].shape[1]
        place, inside = np.divmod(batch["scored_rows"].cpu().numpy(), length)
        rows = windows.window_offsets[batch["window_indices"].cpu().numpy()[place]] + inside
        return lambda start, stop: self._teacher.rows(self._split, rows[start:stop])


def schemes(teacher: RecordedTeacher) -> dict[str, Scheme]:
    """The datasets' schemes: RS-KD at 12 unique ids a token, threshold sampling at the same bytes."""
    part = teacher.windows["train"].select(0, 4)
    draws = _first_to_reach(12, lambda n: _entries(teacher, part, RandomSamplingScheme(draws=n)), range(8, 48))
    sampled = RandomSamplingScheme(draws=draws)
    size = _bytes_a_token(teacher, part, sampled)
    nth = _first_to_reach(
        size, lambda n: _bytes_a_token(teacher, part, ThresholdSamplingScheme(theta=1 / n)), range(4, 64)
    )
    return {
        "top-12": TopKScheme(k=12),
        "top-50": TopKScheme(k=50),
        "adaptive": ThresholdScheme(tau=1e-3, k=128),
        "random-sampling": sampled,
        "threshold-sampling": ThresholdSamplingScheme(theta=1 / nth),
    }


def _first_to_reach(minimum: float, measure: Callable[[int], float], candidates: range) -> int:
    """The first candidate with a measure of at least `minimum`; the measure must increase with the candidates."""
    return candidates[bisect_left(candidates, minimum, key=measure)]


def _entries(teacher: RecordedTeacher, windows: Windows, scheme: Scheme) -> float:
    """Unique ids of a row's sample, on average."""
    (sample,) = targets_of(teacher, "train", windows, slice(0, windows.num_positions), scheme).tail_samples
    rows = np.repeat(np.arange(windows.num_positions), np.diff(sample.offsets))
    return len(np.unique(rows * teacher.teacher.vocab_size + sample.ids)) / windows.num_positions


def _bytes_a_token(teacher: RecordedTeacher, windows: Windows, scheme: Scheme) -> float:
    targets = targets_of(teacher, "train", windows, slice(0, windows.num_positions), scheme)
    metadata = _identity(teacher, scheme).shard_metadata("targets", "train")
    return len(encode_shard(windows, targets, metadata).data) / windows.num_positions


def targets_of(teacher: RecordedTeacher, split: str, windows: Windows, rows: slice, scheme: Scheme) -> Targets:
    """The targets that `logitcask annotate` would compute for some windows, not yet quantized."""
    next_ids, uniforms = windows.next_token(), window_uniforms(windows, scheme)
    blocks = []
    for start in range(0, windows.num_positions, 256):
        chunk = slice(start, min(start + 256, windows.num_positions))
        logits_TV = teacher.rows(split, slice(rows.start + chunk.start, rows.start + chunk.stop))
        blocks.append(
            select_heads(
                logits_TV, scheme, torch.from_numpy(next_ids[chunk]), uniforms_TRN=torch.from_numpy(uniforms[chunk])
            )
        )
    heads = DeviceTargets.concatenate(blocks)
    sample_ids_RM, sample_offsets = heads.sample_ids.T.contiguous(), offsets_from_lengths(heads.sample_widths.numpy())
    return Targets(
        head_ids=heads.ids.numpy(),
        head_log_probs=heads.log_probs.numpy(),
        head_offsets=offsets_from_lengths(heads.widths.numpy()),
        log_tail=heads.log_tail.numpy(),
        log_next=heads.log_next.numpy(),
        entropy=heads.entropy.numpy(),
        top1_ids=heads.top1_ids.numpy(),
        tail_samples=tuple(TailSample(ids=ids.numpy(), offsets=sample_offsets) for ids in sample_ids_RM),
    )


def write_dataset(teacher: RecordedTeacher, scheme: Scheme) -> str:
    """A dataset of both splits, once; returns its URL, whose last part is the dataset's fingerprint."""
    out = CACHE / "datasets" / fingerprint([teacher.fingerprint(), scheme.to_json()])
    if (out / "snapshots").exists():
        return str(out)
    with DatasetWriter(str(out), _identity(teacher, scheme)) as writer:
        for split, windows in teacher.windows.items():
            for start in range(0, windows.num_windows, SHARD_WINDOWS):
                part = windows.select(start, min(start + SHARD_WINDOWS, windows.num_windows))
                first = int(windows.window_offsets[start])
                rows = slice(first, first + part.num_positions)
                writer.write(part, targets_of(teacher, split, part, rows, scheme), split=split)
    return str(out)


def _identity(teacher: RecordedTeacher, scheme: Scheme) -> Identity:
    return Identity(tokenizer=teacher.tokenizer, teacher=teacher.teacher, scheme=scheme, window_tokens=256)
