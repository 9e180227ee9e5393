"""A row of targets over ten ids, and random logits."""

import math

import torch

from logitcask.student.losses.targets import RaggedTargets


def one_row(head: dict[int, float], log_next: float = math.nan, draws: list[int] | None = None) -> RaggedTargets:
    """A row with these head probabilities over ten ids, the rest in the tail."""
    ids = sorted(head)
    tail = 1 - math.fsum(head.values())
    return RaggedTargets(
        head_ids=torch.tensor(ids, dtype=torch.long),
        head_log_probs=torch.tensor([head[i] for i in ids]).double().log(),
        head_offsets=torch.tensor([0, len(ids)]),
        log_tail=torch.tensor([tail]).double().log(),
        vocab_size=10,
        log_next=torch.tensor([log_next]).double(),
        sample_ids=None if draws is None else torch.tensor(draws, dtype=torch.long),
        sample_offsets=None if draws is None else torch.tensor([0, len(draws)]),
    )


def random_row(rows: int = 1, columns: int = 10) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
