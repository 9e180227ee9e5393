"""Windows into one batch of tensors.

Shapes: B windows, S the longest of them, T scored positions (those with a target), N their head entries. Parts are
kept apart by position ids that restart, with no attention mask: `transformers` makes the block-diagonal causal mask
from them. A shorter window is filled up with a part of its own, which no other row can attend to and nothing scores.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from schemas.targets import Targets, Windows
from student.dataset import WindowSample
from student.linear_losses import NO_LABEL
from student.targets import RaggedTargets

Batch = dict[str, Tensor]


def collate(samples: Sequence[WindowSample]) -> Batch:
    """One batch of windows, as a flat dictionary of tensors (what loaders and `Trainer` can move and pin).

    Returns:
        input_ids, position_ids: int64 [B, S].
        num_positions: int64 scalar, rows that are not filling.
        window_indices: int64 [B], numbers of the windows in the dataset.
        scored_rows: int64 [T], index of each scored position in [B · S].
        labels: int64 [T], the next token of the same part, −100 where the part ends.
        head_ids, head_log_probs, head_offsets, log_tail, log_next: see `RaggedTargets`.
    """
    length = max(sample.windows.num_positions for sample in samples)
    targets = Targets.concatenate([_scored(sample.targets) for sample in samples])
    return {
        "input_ids": _stacked([sample.windows.token for sample in samples], length),
        "position_ids": _stacked([_positions(sample.windows, length) for sample in samples], length),
        "num_positions": torch.tensor(sum(sample.windows.num_positions for sample in samples)),
        "window_indices": torch.tensor([sample.index for sample in samples]),
        "scored_rows": _joined(
            [np.flatnonzero(sample.targets.has_target()) + row * length for row, sample in enumerate(samples)]
        ),
        "labels": _joined([_labels(sample)[sample.targets.has_target()] for sample in samples]),
        "head_ids": torch.from_numpy(targets.head_ids).long(),
        "head_log_probs": torch.from_numpy(targets.head_log_probs),
        "head_offsets": torch.from_numpy(targets.head_offsets),
        "log_tail": torch.from_numpy(targets.log_tail),
        "log_next": torch.from_numpy(targets.log_next),
    }


def targets_of(batch: Batch, vocab_size: int) -> RaggedTargets:
    """The targets of a collated batch."""
    return RaggedTargets(
        head_ids=batch["head_ids"],
        head_log_probs=batch["head_log_probs"],
        head_offsets=batch["head_offsets"],
        log_tail=batch["log_tail"],
        log_next=batch["log_next"],
        vocab_size=vocab_size,
    )


def count_positions(batches: Sequence[Batch]) -> Tensor:
    """int64 [2]: rows with a target and rows with a label, the denominators of KL and cross-entropy."""
    counts = [[len(batch["labels"]), int((batch["labels"] != NO_LABEL).sum())] for batch in batches]
    return torch.tensor(counts).reshape(-1, 2).sum(dim=0)


def _scored(targets: Targets) -> Targets:
    """Only the rows with a target; the others own no head entries, so the flat columns stay as they are."""
    rows = targets.has_target()
    widths = targets.head_widths()[rows]
    return Targets(
        head_ids=targets.head_ids,
        head_log_probs=targets.head_log_probs,
        head_offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(widths)]),
        log_tail=targets.log_tail[rows],
        log_next=targets.log_next[rows],
        entropy=None,
    )


def _labels(sample: WindowSample) -> np.ndarray:
    windows = sample.windows
    return np.where(windows.has_label(), windows.next_token(), NO_LABEL)


def _positions(windows: Windows, length: int) -> np.ndarray:
    filling = np.arange(length - windows.num_positions, dtype=np.int32)
    return np.concatenate([windows.position_ids(), filling])


def _stacked(rows: Sequence[np.ndarray], length: int) -> Tensor:
    stacked = np.zeros((len(rows), length), dtype=np.int64)
    for filled, row in zip(stacked, rows, strict=True):
        filled[: len(row)] = row
    return torch.from_numpy(stacked)


def _joined(pieces: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(pieces).astype(np.int64))
