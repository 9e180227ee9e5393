"""Collates windows into one batch of tensors.

Shapes: B windows, S positions in the longest, T scored positions (those with a target), N head entries. Position ids
that restart separate the parts, without an attention mask: `transformers` derives the block-diagonal causal mask from
them. Padding of a shorter window is a part of its own: no other row attends to it, and it is never scored.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from logitcask.schemas.format.ragged import offsets_from_lengths
from logitcask.schemas.format.targets import TailSample, Windows
from logitcask.student.data.dataset import WindowSample
from logitcask.student.losses.targets import NO_LABEL, RaggedTargets, decode

Batch = dict[str, Tensor]

_TEMPERED = "log_tail@"


def collate(samples: Sequence[WindowSample]) -> Batch:
    """One batch of windows, as a flat dictionary of tensors, which loaders and `Trainer` can move and pin.

    Targets from shards stay as stored, at an eighth of the decoded size; `targets_of` decodes them later on the device.

    Returns:
        input_ids, position_ids: int64 [B, S].
        num_positions: int64 scalar, rows that are not padding.
        window_indices: int64 [B], numbers of the windows in the dataset.
        scored_rows: int64 [T], index of each scored position in [B · S].
        labels: int64 [T], the next token of the same part, −100 where the part ends.
        head_ids, head_offsets, log_tail, log_next: see `schemas.format.targets.TargetRows`; ids are int32.
        head_q: uint8 [N], for stored targets; for those of a live teacher: head_log_probs, float32 [N].
        sample_ids, sample_offsets: if the shards hold tail samples, the replica chosen by the epoch.
        log_tail@2, ...: if the shards hold tails at other temperatures.
    """
    windows = _joined([sample.windows for sample in samples])
    lengths = np.diff(windows.window_offsets)
    length = int(lengths.max())
    # The index of each row in [B · S]: windows that are shorter than the longest leave a gap.
    place = np.arange(windows.num_positions) + np.repeat(
        np.arange(len(samples)) * length - windows.window_offsets[:-1], lengths
    )
    padding = np.maximum(0, np.arange(length) - lengths[:, None])
    scored = np.concatenate([sample.targets.has_target() for sample in samples])
    labels = np.where(windows.has_label(), windows.next_token(), NO_LABEL)[scored]
    return {
        "input_ids": _padded(windows.token, place, np.zeros_like(padding)),
        "position_ids": _padded(windows.position_ids(), place, padding),
        "num_positions": torch.tensor(windows.num_positions),
        "window_indices": torch.tensor([sample.index for sample in samples]),
        "scored_rows": torch.from_numpy(place[scored]),
        "labels": torch.from_numpy(labels.astype(np.int64)),
        **_target_columns(samples, scored),
    }


def _target_columns(samples: Sequence[WindowSample], scored: np.ndarray) -> Batch:
    """The columns of the rows with a target; flat columns are unchanged, since other rows have no entries or draws."""
    targets = [sample.targets for sample in samples]
    columns = {name: _flat([getattr(one, name) for one in targets]) for name in targets[0].entry_fields()}
    columns["head_offsets"] = _offsets([one.head_offsets for one in targets], scored)
    columns["log_tail"] = _flat([one.log_tail for one in targets])[scored]
    columns["log_next"] = _flat([one.log_next for one in targets])[scored]
    for temperature in targets[0].tempered_log_tails:
        column = _flat([one.tempered_log_tails[temperature] for one in targets])
        columns[f"{_TEMPERED}{temperature:g}"] = column[scored]
    if targets[0].tail_samples:
        drawn = [_replica_of_epoch(sample) for sample in samples]
        columns["sample_ids"] = _flat([one.ids for one in drawn])
        columns["sample_offsets"] = _offsets([one.offsets for one in drawn], scored)
    return {name: torch.from_numpy(column) for name, column in columns.items()}


def _flat(columns: Sequence[np.ndarray]) -> np.ndarray:
    """One contiguous copy, never a view of a reader's cache."""
    return np.concatenate(columns)


def _replica_of_epoch(sample: WindowSample) -> TailSample:
    """The replica of the tail sample that the epoch chooses, in turn."""
    replicas = sample.targets.tail_samples
    return replicas[sample.epoch % len(replicas)]


def targets_of(batch: Batch, vocab_size: int) -> RaggedTargets:
    """The targets of a collated batch, decoded, on its device."""
    if "head_q" in batch:
        head_log_probs, log_tail = decode(batch["head_q"], batch["head_offsets"], batch["log_tail"])
    else:
        head_log_probs, log_tail = batch["head_log_probs"], batch["log_tail"]
    sample_ids = batch.get("sample_ids")
    return RaggedTargets(
        head_ids=batch["head_ids"].long(),
        head_log_probs=head_log_probs,
        head_offsets=batch["head_offsets"],
        log_tail=log_tail,
        log_next=batch["log_next"],
        sample_ids=None if sample_ids is None else sample_ids.long(),
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


def _offsets(offsets: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Offsets of the chosen rows of all windows; the other rows must be empty."""
    return offsets_from_lengths(np.concatenate([np.diff(one) for one in offsets])[rows])


def _joined(windows: Sequence[Windows]) -> Windows:
    """All rows, without the tables of parts; part boundaries are where the part numbers change."""
    lengths = [one.num_positions for one in windows]
    return Windows(
        token=np.concatenate([one.token for one in windows]),
        kind=np.concatenate([one.kind for one in windows]),
        part=np.concatenate([one.part for one in windows]),
        window_offsets=offsets_from_lengths(lengths),
        parts=(),
    )


def _padded(values_T: np.ndarray, place_T: np.ndarray, padding_BS: np.ndarray) -> Tensor:
    """int64 [B, S]: the values at their places, padding elsewhere."""
    padded_BS = padding_BS.astype(np.int64)
    padded_BS.ravel()[place_T] = values_T
    return torch.from_numpy(padded_BS)
