"""Exact targets of real text: the common input of all encodings of the bench, computed once and cached.

A capture holds the 512 largest log-probabilities of the teacher at each position, in float32, and the exact log of the
remaining mass. Any narrower head and its exact tail can be computed from it. Draws from the tail cannot, so they are
made in the same pass, from the same logits.
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
# The hidden state of one row in 96 is kept: enough for the gradient noise.
HIDDEN_STRIDE = 96
# Increased whenever the code would compute another capture.
VERSION = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledRows:
    """What a sampling scheme keeps of T rows.

    Attributes:
        head_widths: Number of the most probable ids in the head of each row, int64 [T].
        log_tail: Log of the mass of the tail, float32 [T].
        ids: Draws from the tail, one column per replica, int32 [M, R].
        num_draws: Number of draws of each row, int64 [T].
    """

    head_widths: np.ndarray
    log_tail: np.ndarray
    ids: np.ndarray
    num_draws: np.ndarray

    def select_rows(self, rows: slice) -> "SampledRows":
        """The same for some of the rows."""
        ends = offsets_from_lengths(self.num_draws)[[rows.start, rows.stop]]
        return SampledRows(
            head_widths=self.head_widths[rows],
            log_tail=self.log_tail[rows],
            ids=self.ids[slice(*ends)],
            num_draws=self.num_draws[rows],
        )

    def samples(self) -> tuple[TailSample, ...]:
        """One tail sample per replica."""
        offsets = offsets_from_lengths(self.num_draws)
        return tuple(TailSample(ids=np.ascontiguousarray(ids), offsets=offsets) for ids in self.ids.T)


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """Exact targets of T positions, one row each.

    Attributes:
        windows: The windows; those of one source are contiguous.
        source: Name of the source of each window, [W].
        ids: The 512 most probable ids by descending probability, lowest id first on ties, int32 [T, 512].
        log_probs: Their log-probabilities in nats, float32 [T, 512].
        log_tail: Log of the mass of all other ids, float64 [T].
        log_next: Log-probability of the actual next token, float32 [T]; NaN at the end of a part.
        vocab_size: Width of the distribution.
        pieces: Text of each id in `ids`, for encodings that store text.
        drawn: Kind of each sampling scheme (`SAMPLING`) to what it keeps.
        hidden_rows: Rows with a stored hidden state, ascending, int64 [H].
        hidden: The hidden states of these rows, float32 [H, D].
    """

    windows: Windows
    source: tuple[str, ...]
    ids: np.ndarray
    log_probs: np.ndarray
    log_tail: np.ndarray
    log_next: np.ndarray
    vocab_size: int
    pieces: dict[int, str]
    drawn: dict[str, SampledRows]
    hidden_rows: np.ndarray
    hidden: np.ndarray

    def of_source(self, name: str) -> "Capture":
        """The same for the windows of one source."""
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
        """Heads of the k largest entries with p ≥ tau, at least one entry, with exact tails."""
        keep = self.log_probs[:, :k] >= (np.log(tau) if tau else -np.inf)
        keep[:, 0] = True
        return self._largest(keep.sum(1))

    def sampled(self, kind: str) -> Targets:
        """What a sampling scheme keeps: head, tail and the first replica of the sample."""
        drawn = self.drawn[kind]
        return replace(self._largest(drawn.head_widths), log_tail=drawn.log_tail, tail_samples=drawn.samples()[:1])

    def _largest(self, widths: np.ndarray) -> Targets:
        """Heads of `widths` entries, one width per row, with exact tails."""
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
    """Targets of about `num_tokens` positions in equal parts from all sources, read from the cache if possible.

    Returns:
        The capture, and the names of the sources that are not installed.
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
    drawn = {
        kind: SampledRows(**{name: columns.pop(f"{kind} {name}") for name in SampledRows.__slots__})
        for kind in SAMPLING
    }
    pieces_of_ids = {token: tokenizer.piece(token) for token in np.unique(columns["ids"]).tolist()}
    found = Capture(
        windows=windows, source=source, vocab_size=info.vocab_size, pieces=pieces_of_ids, drawn=drawn, **columns
    )
    return found, [name for name in corpus.SOURCES if name not in present]


def _scored(teacher: str, teacher_fingerprint: str, pieces: dict[str, Windows]) -> Iterator[dict[str, np.ndarray]]:
    """The targets of the windows of each source; cached sources are not scored again."""
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
    """The rows of all pieces; `hidden_rows` becomes relative to the first piece."""
    pieces = list(columns)
    first = offsets_from_lengths([len(piece["ids"]) for piece in pieces])
    pieces = [
        {**piece, "hidden_rows": piece["hidden_rows"] + start} for piece, start in zip(pieces, first, strict=False)
    ]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _pack(source: str, tokenizer, num_tokens: int) -> Windows:
    """Whole windows of one source, with at least `num_tokens` positions if the source is large enough."""
    from logitcask.teacher.text.packing import Document, pack_documents

    def documents() -> Iterator[Document]:
        for number, text in enumerate(corpus.documents(source)):
            yield Document(id=f"{source}/{number}", source=source, ids=np.array(tokenizer.encode(text), np.int32))

    # Few windows are open at a time, so that no more text is read than needed.
    packed = pack_documents(
        documents(), WINDOW_TOKENS, bos_id=tokenizer.info.bos_id, eos_id=tokenizer.info.eos_id, max_open=2
    )
    num_windows = max(1, math.ceil(num_tokens / WINDOW_TOKENS))
    return Windows.concatenate(list(itertools.islice(packed, num_windows)))


def _score(model, windows: Windows, label: str) -> dict[str, np.ndarray]:
    """The forward pass of the teacher in float32, window by window."""
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
    """Heads of 512 entries by descending probability."""
    ids, log_probs = top.ids.numpy().reshape(-1, WIDTH), top.log_probs.numpy().reshape(-1, WIDTH)
    # Ids ascend in `top`, so a stable sort puts the lowest id first on ties.
    order = np.argsort(-log_probs, axis=1, kind="stable")
    return {
        "ids": np.take_along_axis(ids, order, 1),
        "log_probs": np.take_along_axis(log_probs, order, 1),
        "log_tail": top.log_tail.numpy().astype(np.float64),
        "log_next": top.log_next.numpy(),
    }
