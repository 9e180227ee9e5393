"""How far a student is from its teacher and from the text, on the windows of a split.

Sums over all positions, divided once: KL by the rows with a target, next-token loss by the rows with a label.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from logitcask.student.data.collator import Batch, collate, targets_of
from logitcask.student.data.mixture import WindowDataset
from logitcask.student.losses.full_kl import TeacherLogits, full_kl
from logitcask.student.losses.fused_loss import CHUNK_ROWS
from logitcask.student.losses.targets import NO_LABEL, RaggedTargets
from logitcask.student.losses.truncated_kl import truncated_kl
from logitcask.student.model.projection import output_projection, scored_hidden_states


class FullTeacher(Protocol):
    """A source of the teacher's full distributions: a live model, or recorded logits."""

    @property
    def vocab_size(self) -> int:
        """V."""
        ...

    def logits_of(self, batch: Batch) -> TeacherLogits:
        """The logits of a batch's scored rows, by ranges of rows."""
        ...


# For the calibration error: bins of equal width in the student's largest probability.
CALIBRATION_BINS = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Means over positions; nan if there are no such positions.

    Attributes:
        kl_nats: KL(teacher ‖ student) over head entries and tail bucket: a lower bound of the full KL. Also nan on
            shards that hold sampled ids but no heads.
        divergence_nats: the divergence that a run minimizes (its tail treatment, divergence and temperature); nan if
            it was not requested.
        full_kl_nats: KL(teacher ‖ student) over the whole vocabulary; nan without a live teacher.
        loss_nats: −log p of the actual next token.
        perplexity: exp(loss_nats).
        teacher_loss_nats: the teacher's own loss on the same tokens.
        top1_agreement: share of positions where the student's most probable id is the next token.
        teacher_agreement: share of positions where the student's most probable id is the teacher's most probable id, or
            tied with it after quantization. Nan if there are no heads.
        calibration_error: expected calibration error (ECE) of the most probable id as a prediction of the next token:
            the mean over positions of |accuracy − mean confidence| of the position's bin, with 15 bins of equal width
            in confidence (Guo et al. 2017, eq. 3).
        num_windows, num_targets, num_labels: the counts.
    """

    kl_nats: float
    divergence_nats: float = math.nan
    full_kl_nats: float = math.nan
    loss_nats: float
    perplexity: float
    teacher_loss_nats: float
    top1_agreement: float
    teacher_agreement: float
    calibration_error: float
    num_windows: int
    num_targets: int
    num_labels: int

    def to_json(self) -> dict[str, float | int | None]:
        """A dictionary with None instead of nan and infinity, and without a divergence that was not requested."""
        values = asdict(self)
        if math.isnan(self.divergence_nats):
            del values["divergence_nats"]
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }


# Indices into the tensor of sums, float64 so that counts are exact. The bins follow: positions, confidence, hits.
_KL, _DIVERGENCE, _FULL_KL, _LOSS, _TEACHER_LOSS, _HITS, _AGREED, _TARGETS, _LABELS, _WINDOWS, _BINS = range(11)


@torch.no_grad()
def evaluate(
    model: PreTrainedModel,
    dataset: WindowDataset,
    *,
    num_windows: int | None = None,
    batch_windows: int = 1,
    rank: int = 0,
    num_ranks: int = 1,
    precision: AbstractContextManager | None = None,
    teacher: FullTeacher | None = None,
    divergence: Callable[[Batch], Tensor] | None = None,
    run_forward: Callable[[Callable[[], Tensor]], Tensor] = lambda forward: forward(),
) -> Evaluation:
    """Evaluates a student on the first windows of a dataset.

    Args:
        model: On any device; its mode (training or not) is restored.
        dataset: Usually the held-out split.
        num_windows: The maximum number of windows; None: all.
        batch_windows: Windows per forward pass.
        rank, num_ranks: With several processes, each evaluates its part, and all get the total.
        precision: For example `torch.autocast(...)`.
        teacher: For the exact KL; None: without.
        divergence: A batch to the divergence of its scored rows that a run minimizes; None: without.
        run_forward: Runs the work of a batch as the model's forward pass, for sharded weights.
    """
    count = len(dataset) if num_windows is None else min(num_windows, len(dataset))
    mine = range(count)[rank::num_ranks]
    was_training = model.training
    model.eval()
    sums = torch.zeros(_BINS + 3 * CALIBRATION_BINS, dtype=torch.float64, device=model.device)
    with precision or nullcontext():
        # The same number of rounds on every process: gathering sharded weights needs all of them.
        for start in range(0, -(-count // num_ranks), batch_windows):
            chosen = mine[start : start + batch_windows]
            batch = collate([dataset[index] for index in chosen or range(1)])
            found = run_forward(partial(_sums, model, batch, dataset.vocab_size, teacher, divergence))
            sums += found if chosen else 0
    model.train(was_training)
    if num_ranks > 1:
        torch.distributed.all_reduce(sums)
    return _means(sums.tolist())


def _sums(
    model: PreTrainedModel,
    batch: Batch,
    vocab_size: int,
    teacher: FullTeacher | None,
    divergence: Callable[[Batch], Tensor] | None,
) -> Tensor:
    batch = {name: column.to(model.device) for name, column in batch.items()}
    hidden_TD, projection = scored_hidden_states(model, batch), output_projection(model)
    targets, labels_T = targets_of(batch, vocab_size), batch["labels"]
    teacher_logits = teacher.logits_of(batch) if teacher else None
    sums = torch.zeros(_BINS + 3 * CALIBRATION_BINS, dtype=torch.float64, device=model.device)
    for start in range(0, len(labels_T), CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, len(labels_T))
        logits_TV = projection.logits(hidden_TD[start:stop])[:, :vocab_size].float()
        _add_chunk(sums, logits_TV, targets.select(start, stop), labels_T[start:stop])
        if teacher_logits is not None:
            sums[_FULL_KL] += full_kl(logits_TV.log_softmax(dim=-1), teacher_logits(start, stop))[0].sum()
    if len(labels_T) and not len(targets.head_ids):
        sums[_KL] = sums[_AGREED] = math.nan  # one bucket with all the mass: its KL is always 0
    if teacher_logits is None:
        sums[_FULL_KL] = math.nan
    sums[_DIVERGENCE] = math.nan if divergence is None else divergence(batch).double().sum()
    sums[_TEACHER_LOSS] = -batch["log_next"][labels_T != NO_LABEL].double().sum()
    sums[_TARGETS], sums[_LABELS] = len(labels_T), (labels_T != NO_LABEL).sum()
    sums[_WINDOWS] = len(batch["window_indices"])
    return sums


def _add_chunk(sums: Tensor, logits_TV: Tensor, targets: RaggedTargets, labels_T: Tensor) -> None:
    """Adds a chunk of rows to all sums that need no live teacher."""
    sums[_KL] += truncated_kl(logits_TV, targets).double().sum()
    best_T = logits_TV.argmax(dim=-1)
    sums[_AGREED] += _is_teachers_best(best_T, targets).sum()
    labeled = labels_T != NO_LABEL
    normalizer_T = logits_TV.logsumexp(dim=-1)
    rows = torch.arange(len(labels_T), device=labels_T.device)
    sums[_LOSS] += (normalizer_T - logits_TV[rows, labels_T.clamp(min=0)])[labeled].double().sum()
    hits_T = (best_T == labels_T)[labeled].double()
    sums[_HITS] += hits_T.sum()
    confidence_T = (logits_TV[rows, best_T] - normalizer_T).exp()[labeled].double()
    bins_T = (confidence_T * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    for number, values_T in enumerate((torch.ones_like(hits_T), confidence_T, hits_T)):
        sums.index_add_(0, _BINS + number * CALIBRATION_BINS + bins_T, values_T)


def _is_teachers_best(best_T: Tensor, targets: RaggedTargets) -> Tensor:
    """bool [T]: whether the id is in the head and no entry of its row is larger."""
    rows = targets.head_rows()
    highest_T = best_T.new_full(best_T.shape, -torch.inf, dtype=targets.head_log_probs.dtype)
    highest_T.scatter_reduce_(0, rows, targets.head_log_probs, "amax")
    is_best_N = (targets.head_ids == best_T[rows]) & (targets.head_log_probs >= highest_T[rows])
    return torch.zeros_like(best_T).index_add_(0, rows, is_best_N.to(best_T.dtype)) > 0


def _means(sums: list[float]) -> Evaluation:
    targets, labels = sums[_TARGETS] or math.nan, sums[_LABELS] or math.nan
    loss = sums[_LOSS] / labels
    confidence, hits = (sums[_BINS + n * CALIBRATION_BINS : _BINS + (n + 1) * CALIBRATION_BINS] for n in (1, 2))
    return Evaluation(
        kl_nats=sums[_KL] / targets,
        divergence_nats=sums[_DIVERGENCE] / targets,
        full_kl_nats=sums[_FULL_KL] / targets,
        loss_nats=loss,
        perplexity=math.exp(loss) if loss < 700 else math.inf,
        teacher_loss_nats=sums[_TEACHER_LOSS] / labels,
        top1_agreement=sums[_HITS] / labels,
        teacher_agreement=sums[_AGREED] / targets,
        calibration_error=sum(abs(c - h) for c, h in zip(confidence, hits, strict=True)) / labels,
        num_windows=int(sums[_WINDOWS]),
        num_targets=int(sums[_TARGETS]),
        num_labels=int(sums[_LABELS]),
    )
