"""Windows of tokens and the teacher's targets for them, as arrays over positions.

Shapes: W windows, T positions of all of them in order, N head entries of all positions in order. Ragged lists are
stored flat with offsets ([T + 1], first 0): row t owns entries offsets[t]:offsets[t + 1]. Log-probabilities are
natural logs. Targets are a structure of arrays, because one Python object per position would cost more than the
teacher.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from functools import cache
from typing import Any, Self

import numpy as np

from logitcask.schemas.format import quantizer
from logitcask.schemas.format.ragged import filter_lists, offsets_from_lengths


class Kind(IntEnum):
    """The purpose of a row's target.

    A row is `PROMPT` if the token it predicts is prompt text. In chat data exactly the rows that predict an assistant
    token are `TRAIN`, including the last row of a prompt, which predicts the first assistant token. `CONTEXT` rows
    repeat the end of the previous window so that later rows can attend to it. Rows of kind `CONTEXT` and `PROMPT` have
    no target.
    """

    TRAIN = 0
    CONTEXT = 1
    PROMPT = 2
    GENERATED = 3


def kinds_with_target(kind: np.ndarray) -> np.ndarray:
    """Whether rows of these kinds have a target, bool, same shape."""
    return (kind == Kind.TRAIN) | (kind == Kind.GENERATED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A document, or the piece of one that lies inside a window.

    Attributes:
        id: The document's id.
        source: Where the document came from: file URL without credentials, and row.
        offset: Index of the part's first token (which may be a context row) in the document's tokens, BOS not
            counted.
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
        """Whether a row has a target, bool [T]."""
        return kinds_with_target(self.kind)

    def has_label(self) -> np.ndarray:
        """Whether a row has a target and its next token is in the part, bool [T]."""
        return self.has_target() & ~self.part_ends()

    def next_token(self) -> np.ndarray:
        """The actual next token of the part, int32 [T]; -1 where the part ends."""
        following = np.append(self.token[1:], np.int32(-1)).astype(np.int32)
        return np.where(self.part_ends(), np.int32(-1), following)

    def num_documents(self) -> int:
        """Documents that begin in these windows; over all shards of a dataset, each document is counted once."""
        return sum(part.offset == 0 for part in self.parts)

    def select(self, start: int, stop: int) -> "Windows":
        """Windows start..stop, with the same `parts`."""
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
        """All windows of `pieces` in order, with all their parts."""
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
        """32 hex digits per window, over its tokens, kinds and part starts: all inputs that a target depends on."""
        rows = np.empty(self.num_positions, dtype=np.dtype([("token", "<i4"), ("kind", "u1"), ("part_start", "u1")]))
        rows["token"], rows["kind"], rows["part_start"] = self.token, self.kind, self.part_starts()
        return [
            hashlib.blake2b(rows[start:stop].tobytes(), digest_size=16).hexdigest()
            for start, stop in zip(self.window_offsets[:-1], self.window_offsets[1:], strict=True)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class TailSample:
    """Ids drawn from the tail of each of T rows; each draw stands for an equal share of the row's tail mass.

    Attributes:
        ids: Ascending inside a row, repeats allowed, int32 [M].
        offsets: int64 [T + 1].
    """

    ids: np.ndarray
    offsets: np.ndarray

    def first_draws(self) -> np.ndarray:
        """Whether a drawn id does not repeat the previous one of its row, bool [M]."""
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

    def filter_rows(self, kept: np.ndarray, silenced: np.ndarray) -> "TailSample":
        """As `TargetRows.filter_rows`."""
        draws, offsets = filter_lists(self.offsets, kept, silenced)
        return TailSample(ids=self.ids[draws], offsets=offsets)

    @classmethod
    def concatenate(cls, pieces: Sequence["TailSample"]) -> "TailSample":
        """All rows of `pieces` in order."""
        return cls(ids=_join([p.ids for p in pieces], np.int32), offsets=_join_offsets([p.offsets for p in pieces]))


def _array(dtype: type, *, is_per_entry: bool = False, is_optional: bool = False) -> dict[str, Any]:
    """Metadata of an array field: one value for each head entry, or one for each row (NaN or -1 without a target)."""
    return {"dtype": dtype, "is_per_entry": is_per_entry, "is_optional": is_optional}


@cache
def _arrays(targets: type["TargetRows"]) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """The array fields of a class of targets, with their metadata."""
    return tuple((one.name, one.metadata) for one in fields(targets) if one.metadata)


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetRows:
    """What targets of T rows have in common, however the values of their heads are held.

    An array field states how its values belong to rows (`_array`), so that select, filter and concatenate cover it.

    Attributes:
        head_ids: Vocabulary ids, ascending inside a row, int32 [N]; empty if they were not read.
        head_offsets: int64 [T + 1].
        log_tail: Log of all mass outside the head, float32 [T]; -inf where the head holds everything, NaN where the
            row has no target.
        log_next: Log-probability of the actual next token, in the head or not, float32 [T]; NaN without a label.
        entropy: Entropy of the full distribution in nats, float32 [T]; NaN where the row has no target. None if it
            was not stored, or not read.
        top1_ids: The teacher's most probable id (lowest on ties), int32 [T], -1 where the row has no target. Used for
            statistics and not stored; None on targets read from a shard.
        tail_samples: One independent replica each; empty if the scheme does not sample.
        tempered_log_tails: Temperature to the log tail mass of softmax(z / temperature) outside the same head,
            float32 [T], NaN where the row has no target.
    """

    head_ids: np.ndarray = field(metadata=_array(np.int32, is_per_entry=True))
    head_offsets: np.ndarray
    log_tail: np.ndarray = field(metadata=_array(np.float32))
    log_next: np.ndarray = field(metadata=_array(np.float32))
    entropy: np.ndarray | None = field(metadata=_array(np.float32, is_optional=True))
    top1_ids: np.ndarray | None = field(default=None, metadata=_array(np.int32, is_optional=True))
    tail_samples: tuple[TailSample, ...] = ()
    tempered_log_tails: Mapping[float, np.ndarray] = field(default_factory=dict)

    @classmethod
    def entry_fields(cls) -> list[str]:
        """Names of the fields with one value for each head entry."""
        return [name for name, array in _arrays(cls) if array["is_per_entry"]]

    @property
    def num_positions(self) -> int:
        return len(self.log_tail)

    def mass(self) -> tuple[np.ndarray, np.ndarray]:
        """Head and tail together, which should be one, and how far quantizing may have moved it: float64 [T] each."""
        raise NotImplementedError

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
        """Rows start..stop, as views."""
        first, last = self.head_offsets[start], self.head_offsets[stop]
        return self._of_rows(
            self.head_offsets[start : stop + 1] - first,
            of_entries=lambda values: values[first:last],
            of_rows=lambda values: values[start:stop],
            of_sample=lambda sample: sample.select_rows(start, stop),
        )

    def filter_rows(self, kept: np.ndarray, silenced: np.ndarray) -> Self:
        """Some rows, and some of these without their targets.

        Args:
            kept: Which rows to keep, bool [T].
            silenced: Which rows lose their target, bool [T].
        """
        entries, offsets = filter_lists(self.head_offsets, kept, silenced)
        return self._of_rows(
            offsets,
            of_entries=lambda values: values[entries],
            of_rows=lambda values: np.where(silenced, _no_value(values.dtype), values)[kept],
            of_sample=lambda sample: sample.filter_rows(kept, silenced),
        )

    def _of_rows(
        self,
        head_offsets: np.ndarray,
        *,
        of_entries: Callable[[np.ndarray], np.ndarray],
        of_rows: Callable[[np.ndarray], np.ndarray],
        of_sample: Callable[[TailSample], TailSample],
    ) -> Self:
        """Targets of other rows, whose values each function takes from those of these rows."""
        arrays = {}
        for name, array in _arrays(type(self)):
            values = getattr(self, name)
            arrays[name] = None if values is None else of_entries(values) if array["is_per_entry"] else of_rows(values)
        return type(self)(
            **arrays,
            head_offsets=head_offsets,
            tail_samples=tuple(map(of_sample, self.tail_samples)),
            tempered_log_tails={key: of_rows(values) for key, values in self.tempered_log_tails.items()},
        )

    @classmethod
    def concatenate(cls, pieces: Sequence[Self]) -> Self:
        """All rows of `pieces` in order. An optional field must have values in all of them or in none."""
        arrays = {}
        for name, array in _arrays(cls):
            values = [getattr(piece, name) for piece in pieces]
            arrays[name] = (_join_optional if array["is_optional"] else _join)(values, array["dtype"])
        tempered = [piece.tempered_log_tails for piece in pieces]
        return cls(
            **arrays,
            head_offsets=_join_offsets([piece.head_offsets for piece in pieces]),
            tail_samples=tuple(map(TailSample.concatenate, zip(*(p.tail_samples for p in pieces), strict=True))),
            tempered_log_tails={
                temperature: _join([tails[temperature] for tails in tempered], np.float32)
                for temperature in (tempered[0] if tempered else ())
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets(TargetRows):
    """The teacher's distribution of the next token at each of T rows: exact head, exact tail, optional sample.

    Attributes:
        head_log_probs: Log-probabilities of the head's entries, float32 [N]. `TargetRows` describes the other fields.
    """

    head_log_probs: np.ndarray = field(metadata=_array(np.float32, is_per_entry=True))

    def mass(self) -> tuple[np.ndarray, np.ndarray]:
        """As `TargetRows.mass`; these values are not quantized."""
        with np.errstate(over="ignore"):
            head = quantizer.sum_rows(np.exp(self.head_log_probs, dtype=np.float64), self.head_offsets)
            return head + quantizer.tail_mass(self.log_tail), np.zeros(self.num_positions)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTargets(TargetRows):
    """Targets as a shard holds them: one byte for each head entry, an index into a table of log-probabilities.

    Head and tail are not yet divided by their sum. Code that computes with them decodes the bytes on the device that
    computes: a quarter of the memory goes there, and reading is a third faster.

    Attributes:
        head_q: Quantized log-probabilities of the head's entries (`schemas.format.quantizer`), uint8 [N]. `TargetRows`
            describes the other fields; `log_tail` is as stored.
    """

    head_q: np.ndarray = field(metadata=_array(np.uint8, is_per_entry=True))

    def mass(self) -> tuple[np.ndarray, np.ndarray]:
        """As `TargetRows.mass`."""
        return quantizer.mass_of(self.head_q, self.head_offsets, self.log_tail)

    def decode(self) -> Targets:
        """The decoded targets; each sums to one."""
        head_log_probs, log_tail = quantizer.decode_targets(self.head_q, self.head_offsets, self.log_tail)
        shared = {one.name: getattr(self, one.name) for one in fields(TargetRows)}
        return Targets(**{**shared, "log_tail": log_tail}, head_log_probs=head_log_probs)


def _no_value(dtype: np.dtype) -> Any:
    """What a row without a target holds in a field with one value for each row."""
    return dtype.type(np.nan if dtype.kind == "f" else -1)


def _join(arrays: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype, copy=False)


def _join_optional(arrays: Sequence[np.ndarray | None], dtype: type) -> np.ndarray | None:
    present = [array for array in arrays if array is not None]
    if not present:
        return None
    assert len(present) == len(arrays), "a field has values in some pieces only"
    return _join(present, dtype)


def _join_offsets(offsets: Sequence[np.ndarray]) -> np.ndarray:
    lengths = [np.diff(one) for one in offsets]
    return offsets_from_lengths(_join(lengths, np.int64))
