"""A dataset with all that `inspect` shows: sources, outliers, timings, vocabulary statistics, a vocabulary."""

import dataclasses
import io
from collections.abc import Callable

import pytest
from rich.console import Console
from shards import commit

from logitcask.schemas.dataset import snapshot_writer
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.layout import write_configuration
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.dataset.vocabulary import write_vocabulary
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.scheme import ThresholdScheme
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.stats.by_source import SourceGroups, summarize_by_source
from logitcask.schemas.stats.outlier_windows import find_outliers
from logitcask.schemas.stats.target_statistics import Statistics
from logitcask.schemas.stats.vocabulary_statistics import STEPS_PER_UNIT, VocabularyStatistics

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
def write_dataset(metadata: ShardMetadata) -> Callable[..., Snapshot]:
    """Writes a finished dataset of one shard for each (name, split, windows, targets)."""

    def write(out: str, shards: list[tuple[str, str, Windows, Targets]], *, vocabulary: bool = True) -> Snapshot:
        described = dataclasses.replace(metadata, scheme=ThresholdScheme())
        identity = Identity.of_shards(described)
        write_configuration(out, identity=identity, environment={})
        if vocabulary:
            write_vocabulary(out, pieces(described.vocab_size), described.tokenizer.vocabulary_fingerprint)
        records = [write_shard(out, described, *shard) for shard in shards]
        return snapshot_writer.write_snapshot(
            out,
            complete=True,
            identity=identity,
            records=records,
            num_documents_in=sum(record.num_documents for record in records) + 2,
            rejected={"empty": 2},
        )

    return write


def write_shard(
    out: str, metadata: ShardMetadata, name: str, split: str, windows: Windows, targets: Targets
) -> UnitRecord:
    steps = {1: STEPS_PER_UNIT * 100, 512: STEPS_PER_UNIT * 180}
    vocabulary = VocabularyStatistics(rows=200, mass_steps=steps, unique_steps={1: STEPS_PER_UNIT * 200})
    return commit(
        out,
        dataclasses.replace(metadata, split=split),
        name,
        windows,
        targets,
        statistics=Statistics.of(windows, targets, vocabulary=vocabulary),
        by_source=summarize_by_source(windows, targets, GROUPS),
        extremes=find_outliers(name, windows, targets),
        environment={"device": {"kind": "cpu", "model": "a core"}},
        timings={
            "score_seconds": 2.0,
            "forward_seconds": 1.5,
            "encode_seconds": 0.5,
            "finish_seconds": 0.25,
            "ended_at": "2026-01-01T00:00:00+00:00",
        },
    )


@pytest.fixture
def shards(windows: Windows, targets: Targets) -> list[tuple[str, str, Windows, Targets]]:
    """Two shards: the windows, and the same with other tokens, whose documents are news."""
    parts = tuple(dataclasses.replace(part, id=f"n-{part.id}", source="news/a.txt#1") for part in windows.parts)
    others = dataclasses.replace(windows, token=(windows.token + 1) % 300, parts=parts)
    return [("shard-0", "train", windows, targets), ("shard-1", "held-out", others, targets)]


@pytest.fixture
def seen(tmp_path, write_dataset, shards) -> Snapshot:
    """The dataset of both shards."""
    return write_dataset(str(tmp_path / "seen"), shards)
