"""How far a student is from its teacher and from the text, on the windows of a split.

Sums over all positions, divided once: KL by the rows with a target, next-token loss by the rows with a label.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from student.collator import Batch, collate, targets_of
from student.dataset import SoftTargetDataset
from student.linear_losses import CHUNK_ROWS, NO_LABEL
from student.losses import truncated_kl
from student.model import hidden_states, output_projection


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Means over positions; nan where there are no such positions.

    Attributes:
        kl_nats: KL(teacher ‖ student) over head entries and tail bucket: a lower bound of the full KL. Nan too on
            shards that hold sampled ids and no heads.
        loss_nats: −log p of the actual next token.
        perplexity: exp(loss_nats).
        teacher_loss_nats: the teacher's own loss on the same tokens.
        top1_agreement: share of positions where the student's most probable id is the next token.
        num_windows, num_targets, num_labels: what was counted.
    """

    kl_nats: float
    loss_nats: float
    perplexity: float
    teacher_loss_nats: float
    top1_agreement: float
    num_windows: int
    num_targets: int
    num_labels: int

    def to_json(self) -> dict[str, float | int | None]:
        """A dictionary without nan."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


# Places in the tensor of sums; float64, so that counts are exact.
_KL, _LOSS, _TEACHER_LOSS, _HITS, _TARGETS, _LABELS, _WINDOWS = range(7)


@torch.no_grad()
def evaluate(
    model: PreTrainedModel,
    dataset: SoftTargetDataset,
    *,
    num_windows: int | None = None,
    batch_windows: int = 1,
    rank: int = 0,
    num_ranks: int = 1,
    precision: AbstractContextManager | None = None,
) -> Evaluation:
    """Evaluates a student on the first windows of a dataset.

    Args:
        model: On any device; left in the mode it was in.
        dataset: Usually the held-out split.
        num_windows: At most so many; None: all.
        batch_windows: Windows in one forward pass.
        rank, num_ranks: With several processes each does its share, and all get the sum.
        precision: For example `torch.autocast(...)`.
    """
    count = len(dataset) if num_windows is None else min(num_windows, len(dataset))
    mine = range(count)[rank::num_ranks]
    was_training = model.training
    model.eval()
    sums = torch.zeros(7, dtype=torch.float64, device=model.device)
    with precision or nullcontext():
        for start in range(0, len(mine), batch_windows):
            batch = collate([dataset[index] for index in mine[start : start + batch_windows]])
            sums += _sums(model, batch, dataset.vocab_size)
    model.train(was_training)
    if num_ranks > 1:
        torch.distributed.all_reduce(sums)
    return _means(sums.tolist())


def _sums(model: PreTrainedModel, batch: Batch, vocab_size: int) -> Tensor:
    batch = {name: column.to(model.device) for name, column in batch.items()}
    hidden_BSD = hidden_states(model, batch["input_ids"], batch["position_ids"])
    hidden_TD = hidden_BSD.flatten(0, 1)[batch["scored_rows"]]
    targets, projection, labels_T = targets_of(batch, vocab_size), output_projection(model), batch["labels"]
    sums = torch.zeros(7, dtype=torch.float64, device=model.device)
    for start in range(0, len(labels_T), CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, len(labels_T)))
        logits_TV = projection.logits(hidden_TD[rows])[:, :vocab_size].float()
        labels = labels_T[rows]
        sums[_KL] += truncated_kl(logits_TV, targets.select(rows.start, rows.stop)).double().sum()
        sums[_LOSS] += cross_entropy(logits_TV, labels, ignore_index=NO_LABEL, reduction="sum").double()
        sums[_HITS] += (logits_TV.argmax(dim=-1) == labels).sum()
    if len(labels_T) and not len(targets.head_ids):
        sums[_KL] = math.nan  # one bucket that holds everything: 0, and no news
    sums[_TEACHER_LOSS] = -batch["log_next"][labels_T != NO_LABEL].double().sum()
    sums[_TARGETS], sums[_LABELS] = len(labels_T), (labels_T != NO_LABEL).sum()
    sums[_WINDOWS] = len(batch["window_indices"])
    return sums


def _means(sums: list[float]) -> Evaluation:
    targets, labels = sums[_TARGETS] or math.nan, sums[_LABELS] or math.nan
    loss = sums[_LOSS] / labels
    return Evaluation(
        kl_nats=sums[_KL] / targets,
        loss_nats=loss,
        perplexity=math.exp(loss) if loss < 700 else math.inf,
        teacher_loss_nats=sums[_TEACHER_LOSS] / labels,
        top1_agreement=sums[_HITS] / labels,
        num_windows=int(sums[_WINDOWS]),
        num_targets=int(sums[_TARGETS]),
        num_labels=int(sums[_LABELS]),
    )
