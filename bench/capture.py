"""Exact targets of real text: what every encoding of the bench is measured on, computed once and kept.

A capture holds the teacher's 512 largest log-probabilities of each position, in float32, and the exact log of the mass
beyond them. Any narrower head, with its exact tail, follows from it.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import corpus
import numpy as np

from schemas.fingerprints import fingerprint
from schemas.targets import Targets, Windows

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "bench-format"
WIDTH = 512
WINDOW_TOKENS = 1024
# Raised when a capture would come out differently.
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """Exact targets of T positions, one row each.

    Attributes:
        windows: All of one source are contiguous.
        source: Name of each window's source, [W].
        ids: By falling probability, lowest id first on ties, int32 [T, 512].
        log_probs: Nats, float32 [T, 512].
        log_tail: Log of the mass beyond the 512, float64 [T].
        log_next: Log-probability of the actual next token, float32 [T]; NaN at the end of a part.
        vocab_size: Width of the distribution.
        pieces: Text of each id that occurs, for encodings that store text.
    """

    windows: Windows
    source: tuple[str, ...]
    ids: np.ndarray
    log_probs: np.ndarray
    log_tail: np.ndarray
    log_next: np.ndarray
    vocab_size: int
    pieces: dict[int, str]

    def of_source(self, name: str) -> "Capture":
        """The windows of one source."""
        first = self.source.index(name)
        last = first + self.source.count(name)
        rows = slice(self.windows.window_offsets[first], self.windows.window_offsets[last])
        return Capture(
            windows=self.windows.select(first, last),
            source=self.source[first:last],
            ids=self.ids[rows],
            log_probs=self.log_probs[rows],
            log_tail=self.log_tail[rows],
            log_next=self.log_next[rows],
            vocab_size=self.vocab_size,
            pieces=self.pieces,
        )

    def heads(self, k: int, tau: float = 0.0) -> Targets:
        """Heads of the k largest with p ≥ tau, at least one, with exact tails."""
        keep = self.log_probs[:, :k] >= (np.log(tau) if tau else -np.inf)
        keep[:, 0] = True
        widths = keep.sum(1)
        order = np.argsort(np.where(keep, self.ids[:, :k], np.iinfo(np.int32).max), axis=1)
        kept = np.arange(k) < widths[:, None]
        beyond = self.log_probs.astype(np.float64)
        beyond[np.arange(WIDTH) < widths[:, None]] = -np.inf
        return Targets(
            head_ids=np.take_along_axis(self.ids[:, :k], order, 1)[kept],
            head_log_probs=np.take_along_axis(self.log_probs[:, :k], order, 1)[kept],
            head_offsets=np.cumsum([0, *widths]).astype(np.int64),
            log_tail=np.logaddexp(self.log_tail, _log_sum(beyond)).astype(np.float32),
            log_next=self.log_next,
            entropy=None,
        )


def _log_sum(log_values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.exp(log_values).sum(1))


def capture(teacher: str, num_tokens: int) -> tuple[Capture, list[str]]:
    """Targets of about `num_tokens` positions in equal parts from every source, from the cache if they are there.

    Returns:
        The capture, and the sources that are not installed.
    """
    from teacher.loading import describe_teacher
    from teacher.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(teacher)
    present = [name for name in corpus.SOURCES if next(corpus.documents(name), None)]
    pieces = [_pack(name, tokenizer, num_tokens // len(present)) for name in present]
    windows = Windows.concatenate(pieces)
    source = tuple(name for name, piece in zip(present, pieces, strict=True) for _ in range(piece.num_windows))
    info = describe_teacher(teacher, "float32")
    key = fingerprint([VERSION, WIDTH, info.fingerprint, windows.content_hashes()])
    path = CACHE / f"{key}.npz"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.npz")
        np.savez(unfinished, **_score(teacher, windows))
        unfinished.rename(path)
    arrays = np.load(path)
    pieces_of_ids = {token: tokenizer.piece(token) for token in np.unique(arrays["ids"]).tolist()}
    found = Capture(windows=windows, source=source, vocab_size=info.vocab_size, pieces=pieces_of_ids, **arrays)
    return found, [name for name in corpus.SOURCES if name not in present]


def _pack(source: str, tokenizer, num_tokens: int) -> Windows:
    """Whole windows of one source, at least `num_tokens` positions if it has as many."""
    from teacher.packing import Document, pack_documents

    def documents() -> Iterator[Document]:
        for number, text in enumerate(corpus.documents(source)):
            yield Document(id=f"{source}/{number}", source=source, ids=np.array(tokenizer.encode(text), np.int32))

    # Few windows open at a time: text is read only as far as it is needed.
    packed = pack_documents(
        documents(), WINDOW_TOKENS, bos_id=tokenizer.info.bos_id, eos_id=tokenizer.info.eos_id, max_open=2
    )
    num_windows = max(1, round(num_tokens / WINDOW_TOKENS))
    return Windows.concatenate(list(itertools.islice(packed, num_windows)))


def _score(teacher: str, windows: Windows) -> dict[str, np.ndarray]:
    """The teacher's forward pass in float32, window by window."""
    from rich.console import Console
    from rich.progress import track

    from schemas.scheme import Scheme
    from teacher.loading import load_model
    from teacher.scorer import HuggingFaceScorer

    scorer = HuggingFaceScorer(load_model(teacher, "float32", "cpu"), Scheme(kind="topk", k=WIDTH))
    steps = track(range(windows.num_windows), description="teacher", console=Console(stderr=True))
    targets = Targets.concatenate([scorer.score(windows.select(window, window + 1)) for window in steps])
    ids, log_probs = targets.head_ids.reshape(-1, WIDTH), targets.head_log_probs.reshape(-1, WIDTH)
    # Ids ascend in `targets`, so a stable sort leaves the lowest first on ties.
    order = np.argsort(-log_probs, axis=1, kind="stable")
    return {
        "ids": np.take_along_axis(ids, order, 1),
        "log_probs": np.take_along_axis(log_probs, order, 1),
        "log_tail": targets.log_tail.astype(np.float64),
        "log_next": targets.log_next,
    }
