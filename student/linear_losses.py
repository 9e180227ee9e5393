"""Projection, soft-cap, truncated KL and cross-entropy in one pass that never holds [T, V].

`linear_truncated_kl` walks over row chunks. For each it forms the chunk's logits, reads the head's out, turns
them into their own gradient in place, and multiplies that into the gradients of hidden states, weight and bias at
once: three matrix products, as plain `linear + cross_entropy` needs, and no recomputation.
That is possible because the loss is a weighted sum whose weights are known beforehand.

Everything about the head (N entries, ~1/500 of the logits) is done in float64, so that p − t of a confident row is
exact where float32 has no digits left; the complement is summed about its own maximum, never as 1 − Σ.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from student.targets import RaggedTargets, segment_logsumexp

NO_LABEL = -100  # as in torch.nn.functional.cross_entropy
CHUNK_ROWS = 256  # measured on two AVX2 cores: 128 rows make the products 15 % slower, 64 rows 40 %


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LinearLoss:
    """What `linear_truncated_kl` returns.

    Attributes:
        loss: scalar, differentiable: kl_weight · Σ kl + cross_entropy_weight · Σ cross_entropy.
        kl: [T], nats per position, 0 where there is no target; no gradient.
        cross_entropy: [T], nats per position, 0 where there is no label; no gradient.
    """

    loss: Tensor
    kl: Tensor
    cross_entropy: Tensor


def linear_truncated_kl(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets: RaggedTargets,
    *,
    labels_T: Tensor | None = None,
    kl_weight: float | Tensor = 1.0,
    cross_entropy_weight: float | Tensor = 0.0,
    softcap: float | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> LinearLoss:
    """Truncated KL (and cross-entropy) of a linear head's logits, without the logits.

    Equals, with `logits = softcap * tanh((hidden @ weight.T + bias) / softcap)` restricted to the teacher's ids,
    `kl_weight * truncated_kl(logits, targets).sum() + cross_entropy_weight * cross_entropy(logits, labels,
    reduction="sum")`. Divide by the number of positions through the weights: 1 / (targets in the global batch) and
    1 / (labels in it), two counts.

    Args:
        hidden_TD: the trunk's output after its final norm; float16/bfloat16/float32/float64.
        weight_VD: output embeddings; rows beyond `targets.vocab_size` get no gradient.
        bias_V: or None.
        targets: the teacher's buckets for the T positions.
        labels_T: int64[T], the actual next token, −100 where there is none; None: no cross-entropy.
        kl_weight: factor of the summed KL.
        cross_entropy_weight: factor of the summed cross-entropy; needs `labels_T` unless 0.
        softcap: final logit soft-cap, or None.
        chunk_rows: rows projected at a time; working memory is 4 · chunk_rows · V bytes (twice that with soft-cap).

    Raises:
        ValueError: shapes that do not fit, a student narrower than the teacher, a weight without labels.
    """
    _check(hidden_TD, weight_VD, targets, labels_T, cross_entropy_weight)
    if torch.is_autocast_enabled(hidden_TD.device.type):
        # As `linear` would do; weight and bias follow the dtype of the hidden states.
        hidden_TD = hidden_TD.to(torch.get_autocast_dtype(hidden_TD.device.type))
    if labels_T is None:
        labels_T = torch.full(hidden_TD.shape[:1], NO_LABEL, device=hidden_TD.device)
    tensors = [tensor for tensor in (hidden_TD, weight_VD, bias_V) if tensor is not None]
    job = _Job(
        targets=targets,
        labels=labels_T,
        kl_weight=kl_weight,
        cross_entropy_weight=cross_entropy_weight,
        softcap=softcap,
        chunk_rows=chunk_rows,
        wants_gradients=torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors),
    )
    loss, kl_T, cross_entropy_T = _LinearTruncatedKL.apply(hidden_TD, weight_VD, bias_V, job)  # type: ignore[misc]
    return LinearLoss(loss=loss, kl=kl_T, cross_entropy=cross_entropy_T)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Job:
    """All that `_LinearTruncatedKL` needs and does not differentiate."""

    targets: RaggedTargets
    labels: Tensor
    kl_weight: float | Tensor
    cross_entropy_weight: float | Tensor
    softcap: float | None
    chunk_rows: int
    wants_gradients: bool


class _LinearTruncatedKL(torch.autograd.Function):
    """Computes gradients in the forward pass; the backward pass only scales them."""

    @staticmethod
    def forward(ctx: FunctionCtx, hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, job: _Job):
        with torch.autocast(hidden_TD.device.type, enabled=False):
            loss, kl_T, cross_entropy_T, gradients = _forward(hidden_TD, weight_VD, bias_V, job, ctx)
        ctx.save_for_backward(*gradients)  # pyright: ignore[reportArgumentType]
        ctx.mark_non_differentiable(kl_T, cross_entropy_T)
        return loss, kl_T, cross_entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor, *_):
        return *(_scaled(gradient, grad_loss) for gradient in ctx.saved_tensors), None


def _scaled(gradient: Tensor | None, factor: Tensor) -> Tensor | None:
    # The usual factor is one. On the CPU it costs nothing to look, and saves a pass over [V, D] and a copy of it.
    if gradient is None or (factor.device.type == "cpu" and factor.item() == 1.0):
        return gradient
    return gradient * factor.to(gradient.dtype)


def _forward(hidden_TD, weight_VD, bias_V, job: _Job, ctx):
    num_rows, vocab_size = hidden_TD.shape[0], job.targets.vocab_size
    weight = weight_VD[:vocab_size].to(hidden_TD.dtype)
    bias = None if bias_V is None else bias_V[:vocab_size].to(hidden_TD.dtype)
    sums = _Gradients.zeros(hidden_TD, weight_VD, bias_V, ctx.needs_input_grad, job)
    kl_T = hidden_TD.new_zeros(num_rows, dtype=torch.float64)
    cross_entropy_T = torch.zeros_like(kl_T)
    for start, stop in _chunks(num_rows, job.chunk_rows):
        hidden = hidden_TD[start:stop]
        logits, slope = _project(hidden, weight, bias, job.softcap)
        rows = _ChunkRows.of(job, start, stop)
        kl_T[start:stop], cross_entropy_T[start:stop] = _losses_and_gradient(logits, rows, job)
        if job.wants_gradients:
            if slope is not None:
                logits *= slope
            sums.add(start, logits.to(hidden.dtype), hidden, weight)
    loss = _weighted(job.kl_weight, kl_T.sum()) + _weighted(job.cross_entropy_weight, cross_entropy_T.sum())
    result = torch.float64 if hidden_TD.dtype == torch.float64 else torch.float32
    gradients = (sums.hidden, sums.weight, sums.bias)
    return loss.to(result), kl_T.to(result), cross_entropy_T.to(result), gradients


def _weighted(weight: float | Tensor, total: Tensor) -> Tensor:
    # A weight of zero switches a loss off, also where it is infinite.
    weight = torch.as_tensor(weight, dtype=total.dtype, device=total.device)
    return torch.where(weight == 0, 0.0, weight * total)


def _chunks(num_rows: int, chunk_rows: int) -> Iterator[tuple[int, int]]:
    """Row ranges of nearly equal size, none above `chunk_rows`: a short last chunk multiplies slowly."""
    num_chunks = -(-num_rows // chunk_rows)
    edges = [num_rows * chunk // num_chunks for chunk in range(num_chunks)] + [num_rows]
    return pairwise(edges)


def _project(hidden, weight, bias, softcap: float | None) -> tuple[Tensor, Tensor | None]:
    """Logits of a chunk in at least float32, and the soft-cap's derivative 1 − tanh² where there is one."""
    logits = hidden @ weight.T if bias is None else torch.addmm(bias, hidden, weight.T)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if softcap is None:
        return logits, None
    logits.div_(softcap).tanh_()
    slope = logits.square().neg_().add_(1.0)
    return logits.mul_(softcap), slope


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _ChunkRows:
    """Targets and labels of a chunk's rows; logs in float64, rows counted from the chunk's first."""

    head_rows: Tensor
    head_ids: Tensor
    head_log: Tensor
    other_log: Tensor
    has_target: Tensor
    label_rows: Tensor
    label_ids: Tensor

    @classmethod
    def of(cls, job: _Job, start: int, stop: int) -> "_ChunkRows":
        targets, labels = job.targets.select(start, stop), job.labels[start:stop]
        head_log, other_log = targets.log_buckets()
        label_rows = (labels != NO_LABEL).nonzero().squeeze(-1)
        return cls(
            head_rows=targets.head_rows(),
            head_ids=targets.head_ids,
            head_log=head_log,
            other_log=other_log,
            has_target=targets.has_target,
            label_rows=label_rows,
            label_ids=labels[label_rows],
        )


def _losses_and_gradient(logits: Tensor, rows: _ChunkRows, job: _Job) -> tuple[Tensor, Tensor]:
    """KL and cross-entropy of a chunk, float64; `logits` becomes the gradient with respect to itself."""
    head = (rows.head_rows, rows.head_ids)
    label = (rows.label_rows, rows.label_ids)
    head_z, label_z = logits[head].double(), logits[label].double()
    other_lse, other_sum = _exponentiate_complement(logits, head)
    head_lse = segment_logsumexp(head_z, rows.head_rows, logits.shape[0])
    normaliser = torch.logaddexp(other_lse, head_lse)
    head_log_p, other_log_p = head_z - normaliser[rows.head_rows], other_lse - normaliser

    kl = torch.zeros_like(normaliser)
    kl.index_add_(0, rows.head_rows, _bucket_terms(rows.head_log, head_log_p))
    kl += _bucket_terms(rows.other_log, other_log_p)
    cross_entropy = torch.zeros_like(normaliser)
    cross_entropy[rows.label_rows] = normaliser[rows.label_rows] - label_z

    if job.wants_gradients:
        kl_weights = job.kl_weight * rows.has_target.double()
        label_weights = torch.zeros_like(normaliser)
        label_weights[rows.label_rows] = job.cross_entropy_weight
        head_p, other_p = head_log_p.exp(), other_log_p.exp()
        # softmax inside the complement × (p_o − t_o) is p_j (1 − t_o / p_o), and has no 0/0 for p_o → 0.
        scale = kl_weights * (other_p - rows.other_log.exp()) + label_weights * other_p
        logits.mul_(torch.where(other_sum > 0, scale / other_sum, 0.0).to(logits.dtype).unsqueeze(-1))
        gradient = kl_weights[rows.head_rows] * (head_p - rows.head_log.exp())
        logits[head] = (gradient + label_weights[rows.head_rows] * head_p).to(logits.dtype)
        logits[label] -= label_weights[rows.label_rows].to(logits.dtype)
    return kl, cross_entropy


def _exponentiate_complement(logits: Tensor, head: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """`logits` ← exp(logits − maximum outside the head), 0 in the head; its log-sum-exp and sum, float64.

    Where everything outside the head is −inf (or nothing is outside) all is 0 and the log-sum-exp −inf.
    """
    logits[head] = float("-inf")
    maximum = logits.amax(dim=-1)
    shift = maximum.where(~maximum.isneginf(), 0.0)
    total = logits.sub_(shift.unsqueeze(-1)).exp_().sum(dim=-1).double()
    return shift.double() + total.log(), total


def _bucket_terms(target_log: Tensor, student_log: Tensor) -> Tensor:
    """t (log t − log p), nothing where t is 0."""
    return torch.where(target_log.isneginf(), 0.0, target_log.exp() * (target_log - student_log))


@dataclass(kw_only=True, slots=True, eq=False)
class _Gradients:
    """Running gradients of the three inputs; None for one that needs none."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    vocab_size: int

    @classmethod
    def zeros(cls, hidden_TD, weight_VD, bias_V, needs: tuple[bool, ...], job: _Job) -> "_Gradients":
        def like(tensor: Tensor | None, needed: bool) -> Tensor | None:
            return torch.zeros_like(tensor) if needed and job.wants_gradients and tensor is not None else None

        return cls(
            hidden=like(hidden_TD, needs[0]),
            weight=like(weight_VD, needs[1]),
            bias=like(bias_V, needs[2]),
            vocab_size=job.targets.vocab_size,
        )

    def add(self, start: int, gradient: Tensor, hidden: Tensor, weight: Tensor) -> None:
        """Adds a chunk's share, given the gradient of its logits [C, V] in the dtype of the products."""
        if self.hidden is not None:
            torch.mm(gradient, weight, out=self.hidden[start : start + hidden.shape[0]])
        if self.weight is not None:
            _add_product(self.weight[: self.vocab_size], gradient.T, hidden)
        if self.bias is not None:
            self.bias[: self.vocab_size] += gradient.sum(dim=0)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _check(hidden_TD, weight_VD, targets: RaggedTargets, labels_T, cross_entropy_weight) -> None:
    if hidden_TD.shape[0] != targets.num_positions:
        raise ValueError(f"{hidden_TD.shape[0]} hidden states, but targets for {targets.num_positions} positions")
    if weight_VD.shape[0] < targets.vocab_size:
        raise ValueError(
            f"the student has {weight_VD.shape[0]} ids, the teacher {targets.vocab_size}: "
            "a student's vocabulary may be wider than its teacher's, never narrower"
        )
    if labels_T is None and not (isinstance(cross_entropy_weight, int | float) and cross_entropy_weight == 0):
        raise ValueError("cross_entropy_weight is set, but there are no labels_T")
