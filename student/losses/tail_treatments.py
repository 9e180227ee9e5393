"""Treatments of the tail: functions from targets to targets.

Each is exact: the loss of the returned targets *is* the treated loss, so one loss and one backward pass serve all
treatments. Labels are the actual next tokens, int64[T], −100 where a row has none.
"""

from dataclasses import replace

import torch
from torch import Tensor

from logitcask.student.losses.targets import NO_LABEL, RaggedTargets, segment_logsumexp


def renormalized(targets: RaggedTargets) -> RaggedTargets:
    """The biased baseline: the head scaled up to carry all the mass, and no tail.

    The student keeps its full softmax. This is the "top-k" of most recipes. It teaches that the tail is impossible, and
    at small k it is worse than cross-entropy (Anshumann et al., ACL 2025, "vanilla top-k"). A row whose head is empty
    or has no mass keeps its tail.
    """
    rows = targets.head_rows()
    log_mass_T = segment_logsumexp(targets.head_log_probs.double(), rows, targets.num_positions)
    scaled = targets.has_target & ~log_mass_T.isneginf()
    log_mass_T = log_mass_T.where(scaled, 0.0)
    return replace(
        targets,
        head_log_probs=(targets.head_log_probs.double() - log_mass_T[rows]).to(targets.head_log_probs.dtype),
        log_tail=targets.log_tail.where(~scaled, float("-inf")),
    )


def residual_to_label(targets: RaggedTargets, labels_T: Tensor) -> RaggedTargets:
    """Adds all of the tail's mass to the actual next token, t_y += t_o, in the head or not.

    See Anshumann et al., ACL 2025, "ghost token" and residual variants. Rows without a label, where a cut document
    ends, keep the other bucket: they are still targets, and dropping them would change the denominator.
    """
    rows = _labeled(targets, labels_T)
    log_tail = targets.log_tail.clone()
    log_tail[rows] = float("-inf")
    return _with_entries(targets, rows, labels_T[rows], targets.log_tail[rows], log_tail)


def with_label_bucket(targets: RaggedTargets, labels_T: Tensor) -> RaggedTargets:
    """Gives the actual next token its own bucket, unless it is in the head: head ∪ {label} + other.

    Its mass is known exactly (`log_next`) and is taken from the other bucket.

    Raises:
        ValueError: The targets lack `log_next`.
    """
    if targets.log_next is None:
        raise ValueError("the label's bucket needs log_next, the teacher's log-probability of the next token")
    rows = _labeled(targets, labels_T)
    width = targets.vocab_size
    is_new = ~torch.isin(rows * width + labels_T[rows], targets.head_rows() * width + targets.head_ids)
    rows = rows[is_new & ~targets.log_next[rows].isnan()]
    tail = targets.log_tail[rows].double()
    # Both are stored rounded, so the label's mass may exceed the tail's.
    log_label = torch.minimum(targets.log_next[rows].double(), tail)
    log_tail = targets.log_tail.clone()
    log_tail[rows] = (tail + torch.log1p(-(log_label - tail).exp())).to(log_tail.dtype)
    return _with_entries(targets, rows, labels_T[rows], log_label, log_tail)


def without_sample(targets: RaggedTargets) -> RaggedTargets:
    """The targets without sampled ids, so that a loss that ignores them does no work for them."""
    return replace(targets, sample_ids=None, sample_offsets=None)


def at_temperature(targets: RaggedTargets, temperature: float) -> RaggedTargets:
    """The same teacher at another temperature, exact thanks to the stored tail mass at that temperature.

    That mass, under softmax(logits / T), cannot be computed from the tail at temperature 1: it needs all logits.

    Args:
        targets: at temperature 1. A tail sample is dropped: it was drawn at temperature 1.
        temperature: T; the head becomes ∝ t^(1/T). Where the tail at T holds all the mass, the head's
            log-probabilities are −inf.

    Raises:
        ValueError: No tail at this temperature is stored.
    """
    log_tail_T = targets.tempered_log_tails.get(temperature)
    if log_tail_T is None:
        raise ValueError(f"the targets hold no tail at temperature {temperature:g}")
    rows = targets.head_rows()
    tempered_N = targets.head_log_probs.double() / temperature
    log_mass_T = segment_logsumexp(tempered_N, rows, targets.num_positions)
    # Dividing by T and normalizing again adds this to the log-probability of every id.
    shift_T = torch.log(-torch.expm1(log_tail_T.double())) - log_mass_T
    log_next = targets.log_next
    return replace(
        targets,
        head_log_probs=(tempered_N + shift_T[rows]).to(targets.head_log_probs.dtype),
        log_tail=log_tail_T,
        log_next=None if log_next is None else (log_next.double() / temperature + shift_T).to(log_next.dtype),
        sample_ids=None,
        sample_offsets=None,
        tempered_log_tails={},
    )


def _labeled(targets: RaggedTargets, labels_T: Tensor) -> Tensor:
    """Rows with a label and some mass in the tail, int64."""
    return ((labels_T != NO_LABEL) & (targets.log_tail > float("-inf"))).nonzero().squeeze(-1)


def _with_entries(
    targets: RaggedTargets, rows: Tensor, ids: Tensor, log_masses: Tensor, log_tail: Tensor
) -> RaggedTargets:
    """Adds mass to ids, in the head or not, and replaces the tail. A sample of the old tail is dropped."""
    width = targets.vocab_size
    keys = torch.cat([targets.head_rows(), rows]) * width + torch.cat([targets.head_ids, ids])
    masses = torch.cat([targets.head_log_probs.double(), log_masses.double()])
    keys, places = torch.unique(keys, return_inverse=True)
    counts = torch.bincount(keys // width, minlength=targets.num_positions)
    return replace(
        targets,
        head_ids=keys % width,
        head_log_probs=segment_logsumexp(masses, places, keys.shape[0]).to(targets.head_log_probs.dtype),
        head_offsets=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        log_tail=log_tail,
        sample_ids=None,
        sample_offsets=None,
        tempered_log_tails={},
    )
