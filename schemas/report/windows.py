"""Sampled windows as compact JSON: columns over rows, pieces as indices into one table, the top of each head.

Numbers are rounded to what the page shows: thousandths of a nat, four digits of a probability.
"""

import codecs
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from logitcask.schemas.dataset.shard_view import open_shard
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.dataset.vocabulary import Vocabulary
from logitcask.schemas.format.reader import Block
from logitcask.schemas.format.targets import Kind, Targets, Windows
from logitcask.schemas.report.sampling import SampledWindow

NUM_ALTERNATIVES = 8
# Document ids and sources come from the corpus and may have any length.
_LABEL_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentRows:
    """A student's results on T rows and on their head entries.

    Attributes:
        kl_nats: KL(teacher ‖ student) over the stored buckets, [T]; nan for a row without a target or a head.
        loss_nats: −log p of the actual next token, [T]; nan without a label.
        probabilities: The student's probability of each head entry, in the order of `Targets.head_ids`, [N].
    """

    kl_nats: np.ndarray
    loss_nats: np.ndarray
    probabilities: np.ndarray


# Scores one window with its targets.
Student = Callable[[Windows, Targets], StudentRows]


@dataclass(kw_only=True, slots=True)
class PieceTable:
    """The distinct ids of a report, in order of first use.

    Attributes:
        vocabulary: The text of ids; without one, pieces are null.
        index_of_id: Index of each id in the table.
    """

    vocabulary: Vocabulary | None
    index_of_id: dict[int, int] = field(default_factory=dict)

    def index(self, token_id: int) -> int:
        """The index of an id; adds the id if it is new."""
        return self.index_of_id.setdefault(token_id, len(self.index_of_id))

    def to_json(self) -> dict[str, Any]:
        ids = list(self.index_of_id)
        known = self.vocabulary
        texts = [None if known is None else known.piece(token_id).decode(errors="replace") for token_id in ids]
        return {"id": ids, "text": texts}


def describe_windows(
    snapshot: Snapshot,
    sampled: Sequence[SampledWindow],
    table: PieceTable,
    *,
    max_rows: int,
    student: Student | None = None,
) -> Iterator[dict[str, Any]]:
    """Each sampled window, cut to `max_rows` rows.

    Raises:
        MissingShardError, CorruptShardError: A shard cannot be read.
    """
    for window in sampled:
        with open_shard(snapshot, window.shard.entry) as opened:
            block = opened.read(window.index, window.index + 1)
        yield {
            "window": window.number,
            "split": window.shard.entry.split,
            "shard": window.shard.entry.name,
            "window_in_shard": window.index,
            "reason": window.reason,
            **describe_rows(block, table, max_rows=max_rows, student=student),
        }


def describe_rows(block: Block, table: PieceTable, *, max_rows: int, student: Student | None) -> dict[str, Any]:
    """The columns of one window; every list except `parts` has one entry for each row shown."""
    windows, targets = block.windows, block.targets
    assert targets is not None, "target shards only"
    rows = min(windows.num_positions, max_rows)
    errors = student(windows, targets) if student else None
    order = [_largest(targets, row) for row in range(rows)]
    return {
        "num_rows": windows.num_positions,
        "parts": list(_parts(windows, rows)),
        "token": [table.index(token_id) for token_id in windows.token[:rows].tolist()],
        "joined": _joined_texts(windows.token[:rows].tolist(), windows.part_starts(), table.vocabulary),
        "kind": [Kind(kind).name.lower() for kind in windows.kind[:rows].tolist()] if windows.kind[:rows].any() else [],
        "loss": _nats(-targets.log_next[:rows]),
        "entropy": [] if targets.entropy is None else _nats(targets.entropy[:rows]),
        "tail": [_digits(value) for value in np.exp(targets.log_tail[:rows]).tolist()],
        "width": targets.head_widths()[:rows].tolist(),
        "top": [_head(targets, entries, table) for entries in order],
        "drawn": [_drawn(targets, row, table) for row in range(rows)] if targets.tail_samples else [],
        "student": None if errors is None else _student(errors, order, rows),
    }


def _parts(windows: Windows, rows: int) -> Iterator[dict[str, Any]]:
    for start in np.flatnonzero(windows.part_starts()[:rows]).tolist():
        part = windows.parts[windows.part[start]]
        yield {
            "row": start,
            "document": part.id[:_LABEL_CHARACTERS],
            "source": part.source[-_LABEL_CHARACTERS:],
            "offset": part.offset,
        }


def _joined_texts(ids: Sequence[int], part_starts: np.ndarray, vocabulary: Vocabulary | None) -> dict[str, str]:
    """Row → text, for rows of a character whose bytes are in several tokens: the last of these rows has the text."""
    if vocabulary is None:
        return {}
    joined, decoder = {}, codecs.getincrementaldecoder("utf-8")(errors="replace")
    for row, token_id in enumerate(ids):
        if part_starts[row]:
            decoder.reset()
        piece = vocabulary.piece(token_id)
        text = decoder.decode(piece)
        if text != piece.decode(errors="replace"):
            joined[str(row)] = text
    return joined


def _largest(targets: Targets, row: int) -> np.ndarray:
    """Indices of a row's most probable entries in descending order; equal ones are in ascending order of ids."""
    start, stop = targets.head_offsets[row : row + 2].tolist()
    return start + np.argsort(-targets.head_log_probs[start:stop], kind="stable")[:NUM_ALTERNATIVES]


def _head(targets: Targets, entries: np.ndarray, table: PieceTable) -> list[float | int]:
    """Piece, probability, piece, probability, …"""
    ids, probabilities = targets.head_ids[entries].tolist(), np.exp(targets.head_log_probs[entries]).tolist()
    return [value for one, p in zip(ids, probabilities, strict=True) for value in (table.index(one), _digits(p) or 0.0)]


def _drawn(targets: Targets, row: int, table: PieceTable) -> list[int]:
    """The first replica: piece, count, piece, count, …, the most frequent first; then the number of all draws."""
    sample = targets.tail_samples[0]
    ids, times = np.unique(sample.ids[sample.offsets[row] : sample.offsets[row + 1]], return_counts=True)
    order = np.argsort(-times, kind="stable")[:NUM_ALTERNATIVES]
    pairs = [value for i in order for value in (table.index(int(ids[i])), int(times[i]))]
    return [*pairs, int(times.sum())]


def _student(errors: StudentRows, order: Sequence[np.ndarray], rows: int) -> dict[str, Any]:
    return {
        "kl": _nats(errors.kl_nats[:rows]),
        "loss": _nats(errors.loss_nats[:rows]),
        "p": [[_digits(p, 3) for p in errors.probabilities[entries].tolist()] for entries in order],
    }


def _nats(values_T: np.ndarray) -> list[float | None]:
    return [round(value, 3) if math.isfinite(value) else None for value in values_T.astype(np.float64).tolist()]


def _digits(value: float, digits: int = 4) -> float | None:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
