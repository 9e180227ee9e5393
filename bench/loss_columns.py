"""The loss heads that `bench/loss.py` compares, on one random problem of a given size."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from logitcask.student.losses.divergences import Divergence, JensenShannon, SampledCrossEntropy, forward_kl, reverse_kl
from logitcask.student.losses.linear_truncated_kl import linear_truncated_kl
from logitcask.student.losses.tail_treatments import without_sample
from logitcask.student.losses.targets import RaggedTargets
from logitcask.student.losses.truncated_kl import truncated_kl

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
try:
    from trl.experimental.sdpo.loss_utils import add_tail_bucket
except ImportError:
    add_tail_bucket = None
try:
    from cut_cross_entropy import linear_cross_entropy
except ImportError:
    linear_cross_entropy = None

BASELINE, DENSE, TRL = "cross-entropy", "naive dense", "TRL tail bucket"
DRAWS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A problem: T positions, width D, V ids, k entries per head."""

    device: str
    dtype: str
    num_positions: int
    width: int
    vocab_size: int
    k: int
    softcap: float | None = None


CPU = Size(device="cpu", dtype="float32", num_positions=1024, width=512, vocab_size=32_000, k=64)
GPU = Size(device="cuda", dtype="bfloat16", num_positions=8192, width=2304, vocab_size=256_000, k=64, softcap=30.0)
SIZES = {
    "cpu": CPU,
    "gpu": GPU,
    "gpu-32k": replace(GPU, num_positions=32_768),
    "gpu-128k": replace(GPU, num_positions=131_072),
}
LONG = ("gpu-32k", "gpu-128k")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Problem:
    """Inputs, targets with a tail sample, and labels."""

    hidden: Tensor
    weight: Tensor
    targets: RaggedTargets
    labels: Tensor
    softcap: float | None

    @classmethod
    def random(cls, size: Size) -> "Problem":
        generator = torch.Generator(size.device).manual_seed(0)
        options = {"generator": generator, "device": size.device}
        rows, width, vocab_size, k = size.num_positions, size.width, size.vocab_size, size.k
        dtype = getattr(torch, size.dtype)
        hidden = torch.randn(rows, width, **options).to(dtype)
        weight = (2 * torch.randn(vocab_size, width, **options) / width**0.5).to(dtype)
        # Evenly spaced ids in each row: distinct and ascending, without creating [T, V].
        stride = (vocab_size - 1) // (k + DRAWS)
        first = torch.randint(stride, (rows, 1), **options)
        ids = first + stride * torch.arange(k + DRAWS, device=size.device)
        head = 0.9 * torch.randn(rows, k, **options).softmax(-1)
        targets = RaggedTargets(
            head_ids=ids[:, :k].flatten(),
            head_log_probs=head.log().flatten(),
            head_offsets=k * torch.arange(rows + 1, device=size.device),
            log_tail=torch.full((rows,), 0.1, device=size.device).log(),
            vocab_size=vocab_size,
            sample_ids=ids[:, k:].flatten(),
            sample_offsets=DRAWS * torch.arange(rows + 1, device=size.device),
        )
        labels = torch.randint(vocab_size, (rows,), **options)
        return cls(
            hidden=hidden.requires_grad_(),
            weight=weight.requires_grad_(),
            targets=targets,
            labels=labels,
            softcap=size.softcap,
        )

    def logits(self) -> Tensor:
        logits = linear(self.hidden, self.weight).float()
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def plain_cross_entropy(problem: Problem) -> Tensor:
    return cross_entropy(problem.logits(), problem.labels, reduction="sum")


def fused(divergence: Divergence = forward_kl) -> Callable[[Problem], Tensor]:
    def loss(problem: Problem) -> Tensor:
        sampled = isinstance(divergence, SampledCrossEntropy)
        targets = problem.targets if sampled else without_sample(problem.targets)
        return linear_truncated_kl(
            problem.hidden, problem.weight, None, targets, softcap=problem.softcap, divergence=divergence
        ).loss

    return loss


def with_cross_entropy(problem: Problem) -> Tensor:
    return linear_truncated_kl(
        problem.hidden,
        problem.weight,
        None,
        without_sample(problem.targets),
        labels_T=problem.labels,
        kl_weight=0.9,
        cross_entropy_weight=0.1,
        softcap=problem.softcap,
    ).loss


def reference(problem: Problem) -> Tensor:
    return truncated_kl(problem.logits(), without_sample(problem.targets)).sum()


def naive_dense(problem: Problem) -> Tensor:
    """A [T, V] teacher with an evenly spread tail, and the KL of two log-softmaxes."""
    logits, targets = problem.logits(), problem.targets
    rows, k = targets.num_positions, targets.head_ids.shape[0] // targets.num_positions
    teacher = (targets.log_tail.exp() / (targets.vocab_size - k)).unsqueeze(-1).expand(-1, targets.vocab_size)
    teacher = teacher.scatter(1, targets.head_ids.view(rows, k), targets.head_log_probs.exp().view(rows, k))
    return torch.nn.functional.kl_div(logits.log_softmax(-1), teacher, reduction="sum")


def trl_tail_bucket(problem: Problem) -> Tensor:
    """TRL's loss, from the student's log-probs of the teacher's top k and its tail bucket."""
    assert add_tail_bucket is not None
    logits, targets = problem.logits(), problem.targets
    rows = targets.num_positions
    ids = targets.head_ids.view(rows, -1)
    student = add_tail_bucket(logits.gather(1, ids) - logits.logsumexp(-1, keepdim=True))
    teacher = add_tail_bucket(targets.head_log_probs.view(rows, -1))
    return torch.nn.functional.kl_div(student, teacher, reduction="sum", log_target=True)


def apples_cut_cross_entropy(problem: Problem) -> Tensor:
    assert linear_cross_entropy is not None
    return linear_cross_entropy(
        problem.hidden, problem.weight, problem.labels, softcap=problem.softcap, reduction="sum"
    )


COLUMNS: dict[str, Callable[[Problem], Tensor]] = {
    BASELINE: plain_cross_entropy,
    "ours": fused(),
    "ours + cross-entropy": with_cross_entropy,
    DENSE: naive_dense,
}
if add_tail_bucket is not None:
    COLUMNS[TRL] = trl_tail_bucket
if linear_cross_entropy is not None and torch.cuda.is_available():
    COLUMNS["cut cross-entropy"] = apples_cut_cross_entropy
# The columns that run without memory for [T, V].
LONG_COLUMNS = ["ours", "ours + cross-entropy"]

# Only with --all.
MORE_COLUMNS: dict[str, Callable[[Problem], Tensor]] = {
    "ours, reverse KL": fused(reverse_kl),
    "ours, JSD": fused(JensenShannon()),
    "ours, tail sample": fused(SampledCrossEntropy()),
    "plain reference": reference,
}
