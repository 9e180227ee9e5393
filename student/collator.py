"""Windows into one batch of tensors.

Shapes: B windows, S the longest of them, T scored positions (those with a target), N their head entries. Parts are
kept apart by position ids that restart, with no attention mask: `transformers` makes the block-diagonal causal mask
from them. A shorter window is filled up with a part of its own, which no other row can attend to and nothing scores.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from schemas.targets import TailSample, Targets, Windows
from student.dataset import WindowSample
from student.targets import NO_LABEL, RaggedTargets

Batch = dict[str, Tensor]

_TEMPERED = "log_tail@"


def collate(samples: Sequence[WindowSample]) -> Batch:
    """One batch of windows, as a flat dictionary of tensors (what loaders and `Trainer` can move and pin).

    Returns:
        input_ids, position_ids: int64 [B, S].
        num_positions: int64 scalar, rows that are not filling.
        window_indices: int64 [B], numbers of the windows in the dataset.
        scored_rows: int64 [T], index of each scored position in [B · S].
        labels: int64 [T], the next token of the same part, −100 where the part ends.
        head_ids, head_log_probs, head_offsets, log_tail, log_next: see `RaggedTargets`.
        sample_ids, sample_offsets: where the shards hold tail samples, the replica whose turn it is in the epoch.
        log_tail@2, ...: where the shards hold tails at other temperatures.
    """
    length = max(sample.windows.num_positions for sample in samples)
    targets = Targets.concatenate([_scored(sample.targets, sample.epoch) for sample in samples])
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
        **_optional_columns(targets),
    }


def _optional_columns(targets: Targets) -> Batch:
    columns = {f"{_TEMPERED}{t:g}": torch.from_numpy(tail) for t, tail in targets.tempered_log_tails.items()}
    for sample in targets.tail_samples:
        columns["sample_ids"] = torch.from_numpy(sample.ids).long()
        columns["sample_offsets"] = torch.from_numpy(sample.offsets)
    return columns


def targets_of(batch: Batch, vocab_size: int) -> RaggedTargets:
    """The targets of a collated batch."""
    return RaggedTargets(
        head_ids=batch["head_ids"],
        head_log_probs=batch["head_log_probs"],
        head_offsets=batch["head_offsets"],
        log_tail=batch["log_tail"],
        log_next=batch["log_next"],
        sample_ids=batch.get("sample_ids"),
        sample_offsets=batch.get("sample_offsets"),
        tempered_log_tails={
            float(name.removeprefix(_TEMPERED)): column for name, column in batch.items() if name.startswith(_TEMPERED)
        },
        vocab_size=vocab_size,
    )


def count_positions(batches: Sequence[Batch]) -> Tensor:
    """int64 [2]: rows with a target and rows with a label, the denominators of KL and cross-entropy."""
    counts = [[len(batch["labels"]), int((batch["labels"] != NO_LABEL).sum())] for batch in batches]
    return torch.tensor(counts).reshape(-1, 2).sum(dim=0)


def _scored(targets: Targets, epoch: int) -> Targets:
    """Only the rows with a target, and of the replicas of the tail sample only the epoch's.

    The other rows own no head entries and no draws, so the flat columns stay as they are.
    """
    rows = targets.has_target()
    replicas = targets.tail_samples
    chosen = replicas[epoch % len(replicas) : epoch % len(replicas) + 1] if replicas else ()
    return Targets(
        head_ids=targets.head_ids,
        head_log_probs=targets.head_log_probs,
        head_offsets=_offsets(targets.head_offsets, rows),
        log_tail=targets.log_tail[rows],
        log_next=targets.log_next[rows],
        entropy=None,
        tail_samples=tuple(TailSample(ids=one.ids, offsets=_offsets(one.offsets, rows)) for one in chosen),
        tempered_log_tails={t: tail[rows] for t, tail in targets.tempered_log_tails.items()},
    )


def _offsets(offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Offsets of the chosen rows, where the others are empty."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.diff(offsets)[rows])])


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
