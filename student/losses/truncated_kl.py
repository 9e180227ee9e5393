"""The truncated KL with its other bucket in plain torch: the reference for the fused implementations.

For one position with teacher t, student p, head H and tail o (everything outside the head):

    L = Σ_{i∈H} t_i (log t_i − log p_i) + t_o (log t_o − log p_o)

This is the KL divergence of two distributions over k + 1 buckets: never negative, never above the full KL, and equal
to it when H is the whole vocabulary. Its gradient is p_j − t_j in the head, the same as in full distillation, and
p_j (1 − t_o / p_o) outside. log p_o is a log-sum-exp over the complement, because 1 − Σ_{i∈H} p_i is 0 in float32 if
the tail is below 6e-8.
"""

import torch
from torch import Tensor

from logitcask.student.losses.divergences import Divergence, bucket_losses, check_divergence, forward_kl
from logitcask.student.losses.targets import NO_LABEL, Buckets, RaggedTargets, segment_logsumexp


def truncated_kl(
    logits_TV: Tensor, targets: RaggedTargets, *, temperature: float = 1.0, divergence: Divergence = forward_kl
) -> Tensor:
    """KL(teacher ‖ student) of each position, over the head's entries and one bucket for all other ids.

    Equals `(t * (t.log() - p.log())).sum(-1)` for the k + 1 bucket probabilities t and p, or another divergence of
    them. Rows without a target give 0 and no gradient. Ids at or beyond `targets.vocab_size` are excluded from the
    student's softmax, as if their logits were −inf.

    Args:
        logits_TV: the student's logits after any soft-cap, [T, V or wider]; half precision is read as float32.
        targets: the teacher's buckets; for a temperature other than one, the buckets *at that temperature*
            (`tail_treatments.at_temperature`).
        temperature: divides the student's logits; the loss and its gradient are multiplied by its square, which keeps
            the gradient's size comparable (Hinton et al. 2015, §2.1).
        divergence: between the teacher's and the student's buckets; see `student.losses.divergences`.

    Returns:
        float[T], nats.

    Raises:
        ValueError: the logits have fewer rows or columns than the targets need; ids beyond the vocabulary; a sampled
            loss at a temperature other than one, or of targets without a sample.
    """
    check_sizes(targets, *logits_TV.shape)
    if not torch.compiler.is_compiling():  # a graph cannot branch on values
        check_ids(targets)
    check_divergence(targets, divergence, temperature)
    loss_T = temperature**2 * bucket_losses(targets, _student_buckets(logits_TV, targets, temperature), divergence)
    return loss_T.to(torch.promote_types(logits_TV.dtype, torch.float32))


def check_sizes(targets: RaggedTargets, num_rows: int, num_ids: int) -> None:
    """Refuses a student whose output does not match the targets.

    Raises:
        ValueError: another number of rows than the targets; fewer ids than the teacher.
    """
    if num_rows != targets.num_positions:
        raise ValueError(f"the student's output has {num_rows} rows, the targets {targets.num_positions}")
    if num_ids < targets.vocab_size:
        raise ValueError(
            f"the student has {num_ids} ids, the teacher {targets.vocab_size}: "
            "a student's vocabulary may be wider than its teacher's, never narrower"
        )


def check_ids(targets: RaggedTargets, labels_T: Tensor | None = None) -> None:
    """Refuses ids outside the teacher's vocabulary: they would be read from another row, or not at all.

    Raises:
        ValueError: an id below 0 or at or beyond `targets.vocab_size`.
    """
    labels = None if labels_T is None else labels_T[labels_T != NO_LABEL]
    for name, ids in (("head", targets.head_ids), ("tail sample", targets.sample_ids), ("labels", labels)):
        if ids is None or not len(ids):
            continue
        minimum, maximum = (int(end) for end in ids.aminmax())
        if minimum < 0 or maximum >= targets.vocab_size:
            raise ValueError(
                f"the {name} has id {minimum if minimum < 0 else maximum}, but the teacher's ids are 0 to "
                f"{targets.vocab_size - 1}: are these targets of another teacher?"
            )


def _student_buckets(logits_TV: Tensor, targets: RaggedTargets, temperature: float) -> Buckets:
    """In float64 once [T, V] is reduced: p − t of a confident row has no correct digits in float32."""
    logits_TV = logits_TV[:, : targets.vocab_size]
    logits_TV = (logits_TV if logits_TV.dtype == torch.float64 else logits_TV.float()) / temperature
    rows, ids = targets.head_rows(), targets.head_ids
    sample_rows = targets.sample_rows()
    sample_ids = sample_rows if targets.sample_ids is None else targets.sample_ids
    rest_TV = logits_TV.index_put((rows, ids), logits_TV.new_tensor(float("-inf")))
    head, other = logits_TV[rows, ids].double(), _logsumexp(rest_TV).double()
    normalizer_T = _logaddexp(other, segment_logsumexp(head, rows, targets.num_positions))
    return Buckets(
        rows=rows,
        head=head - normalizer_T[rows],
        other=other - normalizer_T,
        sample_rows=sample_rows,
        sample=logits_TV[sample_rows, sample_ids].double() - normalizer_T[sample_rows],
    )


def _logaddexp(left_T: Tensor, right_T: Tensor) -> Tensor:
    """log(e^left + e^right) with gradient 0, not nan, where both are −inf."""
    return _logsumexp(torch.stack([left_T, right_T], dim=-1))


def _logsumexp(values_TV: Tensor) -> Tensor:
    """Log-sum-exp over the last dimension with gradient 0, not nan, for a row of −inf."""
    maximum_T = values_TV.detach().amax(dim=-1)
    shift_T = maximum_T.where(~maximum_T.isneginf(), 0.0)
    sum_T = (values_TV - shift_T.unsqueeze(-1)).exp().sum(dim=-1)
    is_empty = sum_T == 0
    return torch.where(is_empty, float("-inf"), shift_T + torch.where(is_empty, 1.0, sum_T).log())
