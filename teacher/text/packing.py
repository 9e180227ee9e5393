"""Packing documents into windows: whole documents side by side, long ones cut, no padding.

A document that fits into a window is never cut; it goes where the least room remains (best fit) among a bounded number
of open windows. A longer document fills windows of its own, and its last piece is placed like a whole document. Every
part starts with BOS if the tokenizer defines one; EOS ends a document, never a cut part. Documents stream: memory holds
the open windows and one document's ids.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from logitcask.schemas.errors import CorpusError, UsageError
from logitcask.schemas.format.targets import Kind, Part, Windows


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One tokenized document.

    Attributes:
        id: The document's id.
        source: File URL without credentials, and row.
        ids: Token ids without BOS, integers [L], L ≥ 1.
        kinds: `Kind` of the rows of these tokens, uint8 [L]; None if every row is `TRAIN`.

    Raises:
        CorpusError: There are no tokens (an empty document must be counted as rejected, not lost), or the number of
            kinds is not the number of tokens.
    """

    id: str
    source: str
    ids: np.ndarray
    kinds: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", np.asarray(self.ids, dtype=np.int32))
        if not len(self.ids):
            raise CorpusError(f"{self.source}: document {self.id!r} has no tokens")
        if self.kinds is not None:
            object.__setattr__(self, "kinds", np.asarray(self.kinds, dtype=np.uint8))
            if len(self.kinds) != len(self.ids):
                raise CorpusError(
                    f"{self.source}: document {self.id!r} has {len(self.ids)} tokens but {len(self.kinds)} kinds"
                )


def kinds_of_chat(is_assistant: np.ndarray) -> np.ndarray:
    """Kinds of a conversation's rows, uint8 [L].

    A row is `TRAIN` exactly if the token after it is the assistant's, so the mask moves by one.

    Args:
        is_assistant: Which tokens the assistant wrote, bool [L].
    """
    predicts_assistant = np.append(np.asarray(is_assistant, dtype=bool)[1:], False)
    return np.where(predicts_assistant, Kind.TRAIN, Kind.PROMPT).astype(np.uint8)


def pack_documents(
    documents: Iterable[Document],
    window_tokens: int,
    *,
    overlap_tokens: int = 0,
    bos_id: int | None = None,
    eos_id: int | None = None,
    max_open: int = 64,
) -> Iterator[Windows]:
    """Windows of at most `window_tokens` rows, one per item; the same documents always give the same windows.

    Args:
        documents: In the order in which they are placed.
        window_tokens: Maximum rows of a window, S.
        overlap_tokens: A cut document's next part repeats this many rows of the previous part, as kind `CONTEXT`.
        bos_id: Starts every part, if not None. Its row is `CONTEXT` before repeated rows. Where a document is cut
            without overlap, it replaces the row before the cut and has that row's kind. At a document's start it is
            `TRAIN`, or `PROMPT` if the document states kinds.
        eos_id: Ends every document that does not already end with it, if not None. Its row has the kind of the row
            before it.
        max_open: Maximum windows kept open for more documents; beyond it the fullest is closed.

    Raises:
        UsageError: A window cannot hold BOS, the overlap and two new tokens.
    """
    smallest = overlap_tokens + (bos_id is not None) + 2
    if overlap_tokens < 0 or max_open < 1 or window_tokens < smallest:
        raise UsageError(
            f"windows of {window_tokens} tokens with an overlap of {overlap_tokens} and {max_open} open windows "
            f"cannot be packed; the window needs at least {smallest}, the overlap 0, the open windows 1"
        )
    cutter = _Cutter(window_tokens=window_tokens, overlap_tokens=overlap_tokens, bos_id=bos_id, eos_id=eos_id)
    shelf = _Shelf(window_tokens=window_tokens, max_open=max_open)
    for document in documents:
        for piece in cutter.pieces(document):
            yield from shelf.place(piece)
    yield from shelf.clear()


def batches(window_offsets: np.ndarray, batch_tokens: int) -> Iterator[tuple[int, int]]:
    """Windows (start, stop) of each batch: all that fit into `batch_tokens`, padded to the longest; at least one."""
    start, longest = 0, 0
    for index, length in enumerate(np.diff(window_offsets).tolist()):
        longest = max(longest, length)
        if index > start and longest * (index + 1 - start) > batch_tokens:
            yield start, index
            start, longest = index, length
    if start < len(window_offsets) - 1:
        yield start, len(window_offsets) - 1


def full_windows(token: np.ndarray, window_tokens: int) -> Windows:
    """Ids, int32 [T], as windows of one part each, to measure a teacher's speed and memory; T is a multiple of S."""
    num_windows = len(token) // window_tokens
    return Windows(
        token=token,
        kind=np.full(len(token), Kind.TRAIN, np.uint8),
        part=np.repeat(np.arange(num_windows, dtype=np.int32), window_tokens),
        window_offsets=np.arange(num_windows + 1, dtype=np.int64) * window_tokens,
        parts=tuple(Part(id=str(number), source="", offset=0) for number in range(num_windows)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Piece:
    """Rows that become one part: tokens int32 [n], kinds uint8 [n]."""

    token: np.ndarray
    kind: np.ndarray
    part: Part
    is_cut: bool  # more of the document follows

    def __len__(self) -> int:
        return len(self.token)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cutter:
    window_tokens: int
    overlap_tokens: int
    bos_id: int | None
    eos_id: int | None

    def pieces(self, document: Document) -> Iterator[_Piece]:
        room = self.window_tokens - (self.bos_id is not None)
        num_ids = len(document.ids)
        adds_eos = self.eos_id is not None and document.ids[-1] != self.eos_id
        end = num_ids + adds_eos
        start, repeated = 0, 0
        while start < end:
            stop = min(end, start - repeated + room)
            if adds_eos and stop == num_ids:
                stop -= 1  # a part of EOS alone would teach nothing: the last token joins it
            yield self._piece(document, start - repeated, start, stop, is_cut=stop < end)
            start, repeated = stop, self.overlap_tokens

    def _piece(self, document: Document, context: int, start: int, stop: int, *, is_cut: bool) -> _Piece:
        """Rows context..stop of the document; those before `start` are repeated."""
        num_ids = len(document.ids)
        token = document.ids[context : min(stop, num_ids)]
        kind = _kinds(document, context, min(stop, num_ids)).copy()
        kind[: start - context] = Kind.CONTEXT
        if stop > num_ids:
            assert self.eos_id is not None
            token, kind = np.append(token, self.eos_id), np.append(kind, kind[-1])
        if self.bos_id is not None:
            token = np.insert(token, 0, self.bos_id)
            kind = np.insert(kind, 0, Kind.CONTEXT if context < start else _kind_before(document, start))
        return _Piece(
            token=token.astype(np.int32),
            kind=kind.astype(np.uint8),
            part=Part(id=document.id, source=document.source, offset=context),
            is_cut=is_cut,
        )


def _kinds(document: Document, start: int, stop: int) -> np.ndarray:
    if document.kinds is None:
        return np.full(stop - start, Kind.TRAIN, dtype=np.uint8)
    return document.kinds[start:stop]


def _kind_before(document: Document, start: int) -> int:
    """Kind of the row that predicts token `start`."""
    if document.kinds is None:
        return Kind.TRAIN
    return int(document.kinds[start - 1]) if start else Kind.PROMPT


@dataclass(kw_only=True, slots=True)
class _Shelf:
    """Open windows, oldest first."""

    window_tokens: int
    max_open: int
    windows: list[list[_Piece]] = field(default_factory=list)
    room: list[int] = field(default_factory=list)

    def place(self, piece: _Piece) -> Iterator[Windows]:
        """Puts a piece into the window that it fills best, or a new one; yields windows that get closed."""
        if piece.is_cut:
            yield _window([piece])
            return
        fitting = [i for i, room in enumerate(self.room) if room >= len(piece)]
        best = min(fitting, key=self.room.__getitem__, default=None)
        if best is None:
            if len(self.windows) == self.max_open:
                yield self._close(min(range(len(self.room)), key=self.room.__getitem__))
            best = len(self.windows)
            self.windows.append([])
            self.room.append(self.window_tokens)
        self.windows[best].append(piece)
        self.room[best] -= len(piece)
        if not self.room[best]:
            yield self._close(best)

    def clear(self) -> Iterator[Windows]:
        while self.windows:
            yield self._close(0)

    def _close(self, index: int) -> Windows:
        self.room.pop(index)
        return _window(self.windows.pop(index))


def _window(pieces: list[_Piece]) -> Windows:
    lengths = [len(piece) for piece in pieces]
    return Windows(
        token=np.concatenate([piece.token for piece in pieces]),
        kind=np.concatenate([piece.kind for piece in pieces]),
        part=np.repeat(np.arange(len(pieces), dtype=np.int32), lengths),
        window_offsets=np.array([0, sum(lengths)], dtype=np.int64),
        parts=tuple(piece.part for piece in pieces),
    )
