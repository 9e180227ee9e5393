"""A dataset with all that `inspect` shows: sources, outliers, timings, vocabulary statistics, a vocabulary."""

import dataclasses
import io
from collections.abc import Callable

import pytest
from random_shards import IDENTITY, VOCAB_SIZE, full_description
from rich.console import Console

from logitcask.schemas import DatasetWriter
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.format.metadata import Split
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.stats.by_source import SourceGroups

ESCAPE_ID, BROKEN_ID = 7, 8
GROUPS = SourceGroups(prefixes={"corpus/": "corpus", "news/": "news"})


def pieces(vocab_size: int) -> list[bytes]:
    """Words, one escape sequence of terminals, and one byte that is no UTF-8."""
    words = [f" w{i}".encode() for i in range(vocab_size)]
    words[ESCAPE_ID], words[BROKEN_ID] = b"\x1b[31m", b"\xff"
    return words


@pytest.fixture
def console() -> Console:
    """A console that is not a terminal; `console.file.getvalue()` is the printed text."""
    return Console(file=io.StringIO(), width=100, highlight=False)


@pytest.fixture
def write_dataset() -> Callable[..., Snapshot]:
    """Writes a finished dataset of one shard for each (name, split, windows, targets)."""

    def write(out: str, shards: list[tuple[str, Split, Windows, Targets]], *, vocabulary: bool = True) -> Snapshot:
        writer = DatasetWriter(out, IDENTITY, pieces=pieces(VOCAB_SIZE) if vocabulary else None)
        for name, split, windows, targets in shards:
            writer.write(windows, targets, split=split, name=name, **full_description(windows, targets, GROUPS))
        return writer.finish(rejected={"empty": 2})

    return write


@pytest.fixture
def shards(windows: Windows, targets: Targets) -> list[tuple[str, Split, Windows, Targets]]:
    """Two shards: the windows, and the same with other tokens, whose documents are news."""
    parts = tuple(dataclasses.replace(part, id=f"n-{part.id}", source="news/a.txt#1") for part in windows.parts)
    others = dataclasses.replace(windows, token=(windows.token + 1) % 300, parts=parts)
    return [("shard-0", "train", windows, targets), ("shard-1", "held-out", others, targets)]


@pytest.fixture
def seen(tmp_path, write_dataset, shards) -> Snapshot:
    """The dataset of both shards."""
    return write_dataset(str(tmp_path / "seen"), shards)
