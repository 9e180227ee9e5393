"""Windows of tokens and the teacher's targets for them, as arrays over positions.

Shapes: W windows, T positions of all of them in order, N head entries of all positions in order. Ragged lists are
stored flat with offsets ([T + 1], first 0): row t owns entries offsets[t]:offsets[t + 1]. Log-probabilities are
natural logs. A structure of arrays, because one Python object per position would cost more than the teacher.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Self

import numpy as np

from logitcask.schemas.format import quantizer
from logitcask.schemas.format.ragged import offsets_from_lengths


class Kind(IntEnum):
    """What a row's target is for.

    A row is `PROMPT` when the token it predicts is prompt text: in chat data exactly the rows that predict an
    assistant token are `TRAIN`, so the last row of a prompt (it predicts the first assistant token) is one of them.
    `CONTEXT` rows repeat the end of the previous window so that later rows can attend to it. Rows of kind `CONTEXT`
    and `PROMPT` carry no target.
    """

    TRAIN = 0
    CONTEXT = 1
    PROMPT = 2
    GENERATED = 3


def kinds_with_target(kind: np.ndarray) -> np.ndarray:
    """Whether rows of these kinds carry a target, bool, same shape."""
    return (kind == Kind.TRAIN) | (kind == Kind.GENERATED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A document, or the piece of one that lies inside a window.

    Attributes:
        id: The document's id.
        source: Where the document came from: file URL without credentials, and row.
        offset: Index of the part's first token in the document's tokens, BOS not counted; for a part that begins
            with context rows, of its first context row.
    """

    id: str
    source: str
    offset: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """W windows, as T rows.

    Attributes:
        token: Input tokens, int32 [T].
        kind: `Kind` of each row, uint8 [T].
        part: Index into `parts`, int32 [T]; changes at a part's start.
        window_offsets: First row of each window, int64 [W + 1].
        parts: The parts, in order of their first row.
    """

    token: np.ndarray
    kind: np.ndarray
    part: np.ndarray
    window_offsets: np.ndarray
    parts: tuple[Part, ...] = field(repr=False)

    @property
    def num_positions(self) -> int:
        return len(self.token)

    @property
    def num_windows(self) -> int:
        return len(self.window_offsets) - 1

    def window_index(self) -> np.ndarray:
        """Index of each row's window, int32 [T]."""
        return np.repeat(np.arange(self.num_windows, dtype=np.int32), np.diff(self.window_offsets))

    def part_starts(self) -> np.ndarray:
        """Whether a row is the first of its part, bool [T]."""
        starts = np.ones(self.num_positions, dtype=bool)
        starts[1:] = self.part[1:] != self.part[:-1]
        starts[self.window_offsets[:-1][np.diff(self.window_offsets) > 0]] = True
        return starts

    def part_ends(self) -> np.ndarray:
        """Whether a row is the last of its part, bool [T]."""
        return np.append(self.part_starts()[1:], True) if self.num_positions else np.zeros(0, dtype=bool)

    def position_ids(self) -> np.ndarray:
        """Positions that restart with each part, int32 [T]."""
        index = np.arange(self.num_positions, dtype=np.int32)
        return index - np.maximum.accumulate(np.where(self.part_starts(), index, 0))

    def has_target(self) -> np.ndarray:
        """Whether a row carries a target, bool [T]."""
        return kinds_with_target(self.kind)

    def has_label(self) -> np.ndarray:
        """Whether a row carries a target whose next token is in the part, bool [T]."""
        return self.has_target() & ~self.part_ends()

    def next_token(self) -> np.ndarray:
        """The actual next token of the part, int32 [T]; -1 where the part ends."""
        following = np.append(self.token[1:], np.int32(-1)).astype(np.int32)
        return np.where(self.part_ends(), np.int32(-1), following)

    def num_documents(self) -> int:
        """Documents that begin here, each counted once over all shards of a dataset."""
        return sum(part.offset == 0 for part in self.parts)

    def select(self, start: int, stop: int) -> "Windows":
        """Windows start..stop; part indices keep their meaning."""
        rows = slice(self.window_offsets[start], self.window_offsets[stop])
        return Windows(
            token=self.token[rows],
            kind=self.kind[rows],
            part=self.part[rows],
            window_offsets=self.window_offsets[start : stop + 1] - self.window_offsets[start],
            parts=self.parts,
        )

    @classmethod
    def concatenate(cls, pieces: Sequence["Windows"]) -> "Windows":
        """All windows of `pieces` in order; their tables of parts are appended."""
        part_shifts = offsets_from_lengths([len(piece.parts) for piece in pieces])
        row_shifts = offsets_from_lengths([piece.num_positions for piece in pieces])
        offsets = [p.window_offsets[1:] + s for p, s in zip(pieces, row_shifts, strict=False)]
        return cls(
            token=_join([p.token for p in pieces], np.int32),
            kind=_join([p.kind for p in pieces], np.uint8),
            part=_join([p.part + s for p, s in zip(pieces, part_shifts, strict=False)], np.int32),
            window_offsets=_join([np.zeros(1), *offsets], np.int64),
            parts=tuple(part for piece in pieces for part in piece.parts),
        )

    def content_hashes(self) -> list[str]:
        """32 hex digits a window, over its tokens, kinds and part starts: what a target's truth depends on."""
        rows = np.empty(self.num_positions, dtype=np.dtype([("token", "<i4"), ("kind", "u1"), ("part_start", "u1")]))
        rows["token"], rows["kind"], rows["part_start"] = self.token, self.kind, self.part_starts()
        return [
            hashlib.blake2b(rows[start:stop].tobytes(), digest_size=16).hexdigest()
            for start, stop in zip(self.window_offsets[:-1], self.window_offsets[1:], strict=True)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class TailSample:
    """Ids drawn from the tail of each of T rows, each standing for an equal share of the row's tail mass.

    Attributes:
        ids: Ascending inside a row, repeats allowed, int32 [M].
        offsets: int64 [T + 1].
    """

    ids: np.ndarray
    offsets: np.ndarray

    def first_draws(self) -> np.ndarray:
        """Whether a drawn id is not a repeat of the one before it in its row, bool [M]."""
        first = np.ones(len(self.ids), dtype=bool)
        first[1:] = self.ids[1:] != self.ids[:-1]
        first[self.offsets[:-1][np.diff(self.offsets) > 0]] = True
        return first

    def select_rows(self, start: int, stop: int) -> "TailSample":
        """Rows start..stop."""
        return TailSample(
            ids=self.ids[self.offsets[start] : self.offsets[stop]],
            offsets=self.offsets[start : stop + 1] - self.offsets[start],
        )

    @classmethod
    def concatenate(cls, pieces: Sequence["TailSample"]) -> "TailSample":
        """All rows of `pieces` in order."""
        return cls(ids=_join([p.ids for p in pieces], np.int32), offsets=_join_offsets([p.offsets for p in pieces]))


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetRows:
    """What targets of T rows have in common, however the values of their heads are held.

    Attributes:
        head_ids: Vocabulary ids, ascending inside a row, int32 [N]; empty where they were not read.
        head_offsets: int64 [T + 1].
        log_tail: Log of all mass outside the head, float32 [T]; -inf where the head holds everything, NaN where the
            row has no target.
        log_next: Log-probability of the actual next token, in the head or not, float32 [T]; NaN without a label.
        entropy: Entropy of the full distribution in nats, float32 [T]; NaN where the row has no target. None where
            it was not stored, or not read.
        top1_ids: The teacher's most probable id (lowest on ties), int32 [T], -1 where the row has no target. Feeds
            the statistics and is not stored; None on targets read from a shard.
        tail_samples: One independent replica each; empty where the scheme does not sample.
        tempered_log_tails: Temperature to the log tail mass of softmax(z / temperature) outside the same head,
            float32 [T], NaN where the row has no target.
    """

    head_ids: np.ndarray
    head_offsets: np.ndarray
    log_tail: np.ndarray
    log_next: np.ndarray
    entropy: np.ndarray | None
    top1_ids: np.ndarray | None = None
    tail_samples: tuple[TailSample, ...] = ()
    tempered_log_tails: Mapping[float, np.ndarray] = field(default_factory=dict)

    @classmethod
    def entry_columns(cls) -> dict[str, type]:
        """Columns with one value for each head entry, and their types."""
        return {"head_ids": np.int32}

    @property
    def num_positions(self) -> int:
        return len(self.log_tail)

    def has_target(self) -> np.ndarray:
        """bool [T]."""
        return ~np.isnan(self.log_tail)

    def has_label(self) -> np.ndarray:
        """bool [T]."""
        return ~np.isnan(self.log_next)

    def head_widths(self) -> np.ndarray:
        """Entries of each head, int64 [T]."""
        return np.diff(self.head_offsets)

    def select_rows(self, start: int, stop: int) -> Self:
        """Rows start..stop."""
        entries = slice(self.head_offsets[start], self.head_offsets[stop])
        return replace(
            self,
            **{name: getattr(self, name)[entries] for name in self.entry_columns()},
            head_offsets=self.head_offsets[start : stop + 1] - self.head_offsets[start],
            log_tail=self.log_tail[start:stop],
            log_next=self.log_next[start:stop],
            entropy=None if self.entropy is None else self.entropy[start:stop],
            top1_ids=None if self.top1_ids is None else self.top1_ids[start:stop],
            tail_samples=tuple(sample.select_rows(start, stop) for sample in self.tail_samples),
            tempered_log_tails={t: tail[start:stop] for t, tail in self.tempered_log_tails.items()},
        )

    @classmethod
    def concatenate(cls, pieces: Sequence[Self]) -> Self:
        """All rows of `pieces` in order. An optional column must be in all of them or in none."""
        columns: dict[str, Any] = {
            name: _join([getattr(p, name) for p in pieces], dtype) for name, dtype in cls.entry_columns().items()
        }
        return cls(
            **columns,
            head_offsets=_join_offsets([p.head_offsets for p in pieces]),
            log_tail=_join([p.log_tail for p in pieces], np.float32),
            log_next=_join([p.log_next for p in pieces], np.float32),
            entropy=_join_optional([p.entropy for p in pieces], np.float32),
            top1_ids=_join_optional([p.top1_ids for p in pieces], np.int32),
            tail_samples=tuple(
                TailSample.concatenate(replica) for replica in zip(*(p.tail_samples for p in pieces), strict=True)
            ),
            tempered_log_tails={
                temperature: _join([p.tempered_log_tails[temperature] for p in pieces], np.float32)
                for temperature in (pieces[0].tempered_log_tails if pieces else ())
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets(TargetRows):
    """The teacher's distribution of the next token at each of T rows: exact head, exact tail, optional sample.

    Attributes:
        head_log_probs: Log-probabilities of the head's entries, float32 [N]. The others are those of `TargetRows`.
    """

    head_log_probs: np.ndarray

    @classmethod
    def entry_columns(cls) -> dict[str, type]:
        return {"head_ids": np.int32, "head_log_probs": np.float32}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTargets(TargetRows):
    """Targets as a shard holds them: a byte for each head entry, a table says of which log-probability.

    Head and tail are not divided by their sum yet. Whoever computes with them looks the bytes up where the computing is
    done: a quarter of the memory goes there, and reading is a third faster.

    Attributes:
        head_q: Quantised log-probabilities of the head's entries (`schemas.format.quantizer`), uint8 [N]. The others
            are those of `TargetRows`, `log_tail` as stored.
    """

    head_q: np.ndarray

    @classmethod
    def entry_columns(cls) -> dict[str, type]:
        return {"head_ids": np.int32, "head_q": np.uint8}

    def decode(self) -> Targets:
        """The targets that these stand for: each sums to one."""
        head_log_probs, log_tail = quantizer.decode_targets(self.head_q, self.head_offsets, self.log_tail)
        shared = {one.name: getattr(self, one.name) for one in fields(TargetRows)}
        return Targets(**{**shared, "log_tail": log_tail}, head_log_probs=head_log_probs)


def _join(arrays: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype, copy=False)


def _join_optional(arrays: Sequence[np.ndarray | None], dtype: type) -> np.ndarray | None:
    present = [array for array in arrays if array is not None]
    if not present:
        return None
    assert len(present) == len(arrays), "a column present in some pieces only"
    return _join(present, dtype)


def _join_offsets(offsets: Sequence[np.ndarray]) -> np.ndarray:
    lengths = [np.diff(one) for one in offsets]
    return offsets_from_lengths(_join(lengths, np.int64))
