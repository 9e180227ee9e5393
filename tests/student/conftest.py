"""Random teachers whose truncation is known exactly, and the dense float64 definition of the loss."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from student.targets import RaggedTargets


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Case:
    """A teacher's full distribution, which ids are in each row's head, and the targets a shard would hold."""

    teacher_TV: Tensor
    is_head_TV: Tensor
    targets: RaggedTargets

    def dense_truncated_kl(self, logits_TV: Tensor) -> Tensor:
        """Σ over the buckets of t (log t − log p), by dense masks and sums; float64[T]."""
        student_TV = logits_TV.double()[:, : self.teacher_TV.shape[1]].softmax(-1)
        head_T = torch.where(self.is_head_TV, self.teacher_TV * (self.teacher_TV.log() - student_TV.log()), 0)
        teacher_other_T = torch.where(self.is_head_TV, 0, self.teacher_TV).sum(-1)
        student_other_T = torch.where(self.is_head_TV, 0, student_TV).sum(-1)
        has_other_T = ~self.is_head_TV.all(-1)
        safe_T = torch.where(has_other_T, student_other_T, 1)
        other_T = torch.where(has_other_T, teacher_other_T, 1)
        tail_T = torch.where(has_other_T, other_T * (other_T.log() - safe_T.log()), 0)
        return (head_T.sum(-1) + tail_T).where(self.targets.has_target, 0)

    def dense_kl(self, logits_TV: Tensor) -> Tensor:
        """The full KL(teacher ‖ student), float64[T]."""
        log_student_TV = logits_TV.double().log_softmax(-1)
        return (self.teacher_TV * (self.teacher_TV.log() - log_student_TV)).sum(-1)


def _truncate(teacher_TV: Tensor, widths: list[int], masked: list[bool] | None = None) -> Case:
    """Heads of the given widths (the largest probabilities) of a dense teacher; masked rows have no target."""
    is_head_TV = torch.zeros_like(teacher_TV, dtype=torch.bool)
    for row, width in enumerate(widths):
        is_head_TV[row, teacher_TV[row].topk(width).indices] = True
    masked_T = torch.tensor(masked or [False] * len(widths))
    is_head_TV[masked_T] = False
    rows, ids = is_head_TV.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(widths))
    log_tail_T = teacher_TV.where(~is_head_TV, 0).sum(-1).log()
    return Case(
        teacher_TV=teacher_TV,
        is_head_TV=is_head_TV,
        targets=RaggedTargets(
            head_ids=ids,
            head_log_probs=teacher_TV[rows, ids].log(),
            head_offsets=torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)]),
            log_tail=log_tail_T.where(~masked_T, float("nan")),
            vocab_size=teacher_TV.shape[1],
        ),
    )


@pytest.fixture(scope="session")
def truncate() -> Callable[..., Case]:
    return _truncate


@pytest.fixture(scope="session")
def random_case() -> Callable[..., Case]:
    """`random_case(widths, vocab_size, seed, masked=None)`: a random peaked teacher, truncated."""

    def make(widths: list[int], vocab_size: int, seed: int = 0, masked: list[bool] | None = None) -> Case:
        generator = torch.Generator().manual_seed(seed)
        logits_TV = 3 * torch.randn(len(widths), vocab_size, generator=generator, dtype=torch.float64)
        return _truncate(logits_TV.softmax(-1), widths, masked)

    return make
