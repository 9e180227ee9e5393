"""Exact targets of real text: what every encoding of the bench is measured on, computed once and kept.

A capture holds the teacher's 512 largest log-probabilities of each position, in float32, and the exact log of the mass
beyond them: any narrower head, with its exact tail, follows from it. Draws from the tail do not, so they are made in
the same pass, from the same logits.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import corpus
import numpy as np

from logitcask.schemas.fingerprints import fingerprint
from logitcask.schemas.format.ragged import offsets_from_lengths
from logitcask.schemas.format.scheme import RandomSamplingScheme, ThresholdSamplingScheme, TopKScheme
from logitcask.schemas.format.targets import TailSample, Targets, Windows

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "bench-format"
WIDTH = 512
WINDOW_TOKENS = 1024
SAMPLING = {
    "threshold-sampling": ThresholdSamplingScheme(theta=1 / 36, replicas=2),
    "random-sampling": RandomSamplingScheme(draws=50),
}
# Every so many rows the hidden state is kept: enough for the gradient's noise.
HIDDEN_STRIDE = 96
# Raised when a capture would come out differently.
VERSION = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """What a sampling scheme keeps of T rows.

    Attributes:
        head_widths: How many of the most probable ids are the head, int64 [T].
        log_tail: float32 [T].
        ids: Draws from the tail, a column for each replica, int32 [M, R].
        num_draws: Of each row, int64 [T].
    """

    head_widths: np.ndarray
    log_tail: np.ndarray
    ids: np.ndarray
    num_draws: np.ndarray

    def select_rows(self, rows: slice) -> "Drawn":
        """Some of the rows."""
        ends = offsets_from_lengths(self.num_draws)[[rows.start, rows.stop]]
        return Drawn(
            head_widths=self.head_widths[rows],
            log_tail=self.log_tail[rows],
            ids=self.ids[slice(*ends)],
            num_draws=self.num_draws[rows],
        )

    def samples(self) -> tuple[TailSample, ...]:
        """A sample a replica."""
        offsets = offsets_from_lengths(self.num_draws)
        return tuple(TailSample(ids=np.ascontiguousarray(ids), offsets=offsets) for ids in self.ids.T)


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
        drawn: By the kind of a sampling scheme (`SAMPLING`), what it keeps.
        hidden_rows: Rows, rising, of whose hidden states there are some, int64 [H].
        hidden: Their hidden states, float32 [H, D].
    """

    windows: Windows
    source: tuple[str, ...]
    ids: np.ndarray
    log_probs: np.ndarray
    log_tail: np.ndarray
    log_next: np.ndarray
    vocab_size: int
    pieces: dict[int, str]
    drawn: dict[str, Drawn]
    hidden_rows: np.ndarray
    hidden: np.ndarray

    def of_source(self, name: str) -> "Capture":
        """The windows of one source."""
        first = self.source.index(name)
        last = first + self.source.count(name)
        rows = slice(*self.windows.window_offsets[[first, last]].tolist())
        inside = (self.hidden_rows >= rows.start) & (self.hidden_rows < rows.stop)
        return replace(
            self,
            windows=self.windows.select(first, last),
            source=self.source[first:last],
            ids=self.ids[rows],
            log_probs=self.log_probs[rows],
            log_tail=self.log_tail[rows],
            log_next=self.log_next[rows],
            drawn={kind: drawn.select_rows(rows) for kind, drawn in self.drawn.items()},
            hidden_rows=self.hidden_rows[inside] - rows.start,
            hidden=self.hidden[inside],
        )

    def heads(self, k: int, tau: float = 0.0) -> Targets:
        """Heads of the k largest with p ≥ tau, at least one, with exact tails."""
        keep = self.log_probs[:, :k] >= (np.log(tau) if tau else -np.inf)
        keep[:, 0] = True
        return self._largest(keep.sum(1))

    def sampled(self, kind: str) -> Targets:
        """What a sampling scheme keeps: head, tail and the first replica of the sample."""
        drawn = self.drawn[kind]
        return replace(self._largest(drawn.head_widths), log_tail=drawn.log_tail, tail_samples=drawn.samples()[:1])

    def _largest(self, widths: np.ndarray) -> Targets:
        """Heads of so many entries, with exact tails."""
        k = int(widths.max())
        kept = np.arange(k) < widths[:, None]
        order = np.argsort(np.where(kept, self.ids[:, :k], np.iinfo(np.int32).max), axis=1)
        beyond = self.log_probs.astype(np.float64)
        beyond[np.arange(WIDTH) < widths[:, None]] = -np.inf
        return Targets(
            head_ids=np.take_along_axis(self.ids[:, :k], order, 1)[kept],
            head_log_probs=np.take_along_axis(self.log_probs[:, :k], order, 1)[kept],
            head_offsets=offsets_from_lengths(widths),
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
    from logitcask.teacher.model.description import describe_teacher
    from logitcask.teacher.text.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(teacher)
    present = [name for name in corpus.SOURCES if next(corpus.documents(name), None)]
    pieces = [_pack(name, tokenizer, num_tokens // len(present)) for name in present]
    windows = Windows.concatenate(pieces)
    source = tuple(name for name, piece in zip(present, pieces, strict=True) for _ in range(piece.num_windows))
    info = describe_teacher(teacher, "float32")
    columns = _concatenated(_scored(teacher, info.fingerprint, dict(zip(present, pieces, strict=True))))
    drawn = {kind: Drawn(**{name: columns.pop(f"{kind} {name}") for name in Drawn.__slots__}) for kind in SAMPLING}
    pieces_of_ids = {token: tokenizer.piece(token) for token in np.unique(columns["ids"]).tolist()}
    found = Capture(
        windows=windows, source=source, vocab_size=info.vocab_size, pieces=pieces_of_ids, drawn=drawn, **columns
    )
    return found, [name for name in corpus.SOURCES if name not in present]


def _scored(teacher: str, teacher_fingerprint: str, pieces: dict[str, Windows]) -> Iterator[dict[str, np.ndarray]]:
    """The targets of each source's windows; a source whose targets are there is not scored again."""
    from scoring import load_teacher

    model = None
    CACHE.mkdir(parents=True, exist_ok=True)
    for name, windows in pieces.items():
        key = fingerprint([VERSION, WIDTH, HIDDEN_STRIDE, teacher_fingerprint, windows.content_hashes()])
        path = CACHE / f"{key}.npz"
        if not path.exists():
            model = model or load_teacher(teacher)
            unfinished = path.with_suffix(".part.npz")
            np.savez(unfinished, **_score(model, windows, name))
            unfinished.rename(path)
        yield dict(np.load(path))


def _concatenated(columns: Iterator[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Rows of all, counted from the first."""
    pieces = list(columns)
    first = offsets_from_lengths([len(piece["ids"]) for piece in pieces])
    pieces = [
        {**piece, "hidden_rows": piece["hidden_rows"] + start} for piece, start in zip(pieces, first, strict=False)
    ]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _pack(source: str, tokenizer, num_tokens: int) -> Windows:
    """Whole windows of one source, at least `num_tokens` positions if it has as many."""
    from logitcask.teacher.text.packing import Document, pack_documents

    def documents() -> Iterator[Document]:
        for number, text in enumerate(corpus.documents(source)):
            yield Document(id=f"{source}/{number}", source=source, ids=np.array(tokenizer.encode(text), np.int32))

    # Few windows open at a time: text is read only as far as it is needed.
    packed = pack_documents(
        documents(), WINDOW_TOKENS, bos_id=tokenizer.info.bos_id, eos_id=tokenizer.info.eos_id, max_open=2
    )
    num_windows = max(1, math.ceil(num_tokens / WINDOW_TOKENS))
    return Windows.concatenate(list(itertools.islice(packed, num_windows)))


def _score(model, windows: Windows, label: str) -> dict[str, np.ndarray]:
    """The teacher's forward pass in float32, window by window."""
    from rich.console import Console
    from rich.progress import track

    from logitcask.teacher.scoring.heads import DeviceTargets

    blocks, hidden, rows = [], [], []
    for number in track(range(windows.num_windows), description=f"teacher, {label}", console=Console(stderr=True)):
        window, first = windows.select(number, number + 1), int(windows.window_offsets[number])
        hidden_SD = model.hidden(window)
        blocks.append(model.selections(window, hidden_SD, (TopKScheme(k=WIDTH), *SAMPLING.values())))
        kept = np.arange(-first % HIDDEN_STRIDE, len(hidden_SD), HIDDEN_STRIDE)
        rows.append(first + kept)
        hidden.append(hidden_SD.numpy()[kept])
    top, *sampled = (DeviceTargets.concatenate(one) for one in zip(*blocks, strict=True))
    columns = {**_by_probability(top), "hidden_rows": np.concatenate(rows), "hidden": np.concatenate(hidden)}
    for kind, heads in zip(SAMPLING, sampled, strict=True):
        columns[f"{kind} head_widths"], columns[f"{kind} log_tail"] = heads.widths.numpy(), heads.log_tail.numpy()
        columns[f"{kind} ids"], columns[f"{kind} num_draws"] = heads.sample_ids.numpy(), heads.sample_widths.numpy()
    return columns


def _by_probability(top) -> dict[str, np.ndarray]:
    """Heads of 512 entries by falling probability."""
    ids, log_probs = top.ids.numpy().reshape(-1, WIDTH), top.log_probs.numpy().reshape(-1, WIDTH)
    # Ids ascend in `top`, so a stable sort leaves the lowest first on ties.
    order = np.argsort(-log_probs, axis=1, kind="stable")
    return {
        "ids": np.take_along_axis(ids, order, 1),
        "log_probs": np.take_along_axis(log_probs, order, 1),
        "log_tail": top.log_tail.numpy().astype(np.float64),
        "log_next": top.log_next.numpy(),
    }
