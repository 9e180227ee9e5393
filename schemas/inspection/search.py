"""Finds windows by their text, or by the document that they contain.

Reads only tokens and parts, shard by shard, in bounded memory.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from logitcask.schemas import storage
from logitcask.schemas.dataset.shard_view import open_shard
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.dataset.vocabulary import Vocabulary
from logitcask.schemas.errors import UsageError
from logitcask.schemas.inspection.numbering import NumberedShard, numbered_shards

FIND_SCHEMA = "logitcask.find/1"
DOCUMENT_SCHEMA = "logitcask.document/1"
# Text shown on each side of a hit.
_CONTEXT_BYTES = 60


def find_text(
    snapshot: Snapshot, text: str, vocabulary: Vocabulary, *, split: str | None = None, limit: int = 20
) -> dict[str, Any]:
    """Windows that contain exactly `text`; each is listed once, with its first hit.

    Args:
        snapshot: The snapshot to search.
        text: The text to search for.
        vocabulary: The dataset's vocabulary.
        split: Search only this split.
        limit: Maximum number of windows.

    Raises:
        UsageError: `text` is empty.
    """
    if not text:
        raise UsageError("--find requires a text that is not empty")
    hits: list[dict[str, Any]] = []
    searched = 0
    for shard in numbered_shards(snapshot, split):
        for window, hit in _search(snapshot, shard, text.encode(), vocabulary):
            hits.append(hit)
            if len(hits) == limit:
                return _found(snapshot, text, hits, searched + window + 1, stopped=True)
        searched += shard.entry.num_windows
    return _found(snapshot, text, hits, searched, stopped=False)


def locate_document(snapshot: Snapshot, document: str) -> dict[str, Any]:
    """The places of a document's parts, in the order of its text."""
    parts = [one for shard in numbered_shards(snapshot) for one in _parts_of(snapshot, shard, document)]
    return {
        "schema": DOCUMENT_SCHEMA,
        "dataset": storage.redact(snapshot.url),
        "snapshot": snapshot.number,
        "document": document,
        "parts": sorted(parts, key=lambda part: (part["offset"], part["window"])),
    }


def _found(
    snapshot: Snapshot, text: str, hits: list[dict[str, Any]], searched: int, *, stopped: bool
) -> dict[str, Any]:
    return {
        "schema": FIND_SCHEMA,
        "dataset": storage.redact(snapshot.url),
        "snapshot": snapshot.number,
        "text": text,
        "windows_searched": searched,
        "stopped_at_limit": stopped,
        "hits": hits,
    }


def _search(
    snapshot: Snapshot, shard: NumberedShard, wanted: bytes, vocabulary: Vocabulary
) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_shard(snapshot, shard.entry) as opened:
        token, part, offsets = opened.read_tokens()
        pieces = list(map(vocabulary.piece, range(opened.metadata.vocab_size)))
        ids = token.tolist()
        for window, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            text = b"".join([pieces[token_id] for token_id in ids[start:stop]])
            at = text.find(wanted)
            if at < 0:
                continue
            row = _row_at(pieces, ids[start:stop], at)
            found = opened.parts[part[start + row]]
            yield (
                window,
                {
                    "window": shard.first_window + window,
                    "split": shard.entry.split,
                    "shard": shard.entry.name,
                    "window_in_shard": window,
                    "row": row,
                    "document": found.id,
                    "source": found.source,
                    **_surroundings(text, at, at + len(wanted)),
                },
            )


def _row_at(pieces: list[bytes], ids: list[int], at: int) -> int:
    """The row whose piece contains byte `at` of the window's text."""
    ends = np.cumsum([len(pieces[token_id]) for token_id in ids])
    return int(np.searchsorted(ends, at, side="right"))


def _surroundings(text: bytes, start: int, stop: int) -> dict[str, str]:
    before, after = text[max(0, start - _CONTEXT_BYTES) : start], text[stop : stop + _CONTEXT_BYTES]
    # A character that is cut is left out.
    return {"before": before.decode(errors="ignore"), "after": after.decode(errors="ignore")}


def _parts_of(snapshot: Snapshot, shard: NumberedShard, document: str) -> Iterator[dict[str, Any]]:
    with open_shard(snapshot, shard.entry) as opened:
        wanted = [index for index, part in enumerate(opened.parts) if part.id == document]
        if not wanted:
            return
        _, part_of_row, offsets = opened.read_tokens()
        for index in wanted:
            rows = np.flatnonzero(part_of_row == index)
            if not len(rows):
                continue
            window = int(np.searchsorted(offsets, rows[0], side="right")) - 1
            yield {
                "window": shard.first_window + window,
                "split": shard.entry.split,
                "shard": shard.entry.name,
                "window_in_shard": window,
                "first_row": int(rows[0] - offsets[window]),
                "stop_row": int(rows[-1] + 1 - offsets[window]),
                "offset": opened.parts[index].offset,
                "source": opened.parts[index].source,
            }
