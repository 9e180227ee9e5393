"""Statistics of a whole job, as `inspect` shows them."""

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest
from small_job import blocks

from logitcask.pipeline.job import JobResult
from logitcask.schemas import cli
from logitcask.schemas.stats.by_source import SourceSummary
from logitcask.schemas.stats.outlier_windows import MAX_OUTLIERS, MIN_ROWS
from logitcask.schemas.stats.vocabulary_statistics import VocabularyStatistics

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")


def test_inspect_shows_sources_that_add_up_to_the_whole(
    finished_job: JobResult, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = inspected(finished_job.out, capsys)
    sources, total = shown["sources"], shown["total"]
    assert sources.keys() == {"a.jsonl", "b.md"}
    for count in ("tokens", "documents", "targets", "labels"):
        assert sum(source[count] for source in sources.values()) == total[count]
        assert all(source[count] > 0 for source in sources.values())
    whole = finished_job.snapshot.total()
    merged = sum(whole.by_source.values(), SourceSummary())
    assert merged.statistics == dataclasses.replace(whole.statistics, wide=VocabularyStatistics())


def test_inspect_shows_the_outlier_windows(finished_job: JobResult, capsys: pytest.CaptureFixture[str]) -> None:
    shown = inspected(finished_job.out, capsys)["outliers"]
    losses, entropies = window_means(finished_job, "log_next"), window_means(finished_job, "entropy")
    for measure, means, sign in (
        ("highest_loss", losses, -1),
        ("lowest_loss", losses, 1),
        ("highest_entropy", entropies, -1),
    ):
        found = [(one["shard"], one["window"]) for one in shown[measure]]
        assert len(found) == len(set(found)) == MAX_OUTLIERS
        # What is stored is rounded to 1/2048 nat.
        expected = sorted(means.values(), key=lambda mean: sign * mean)[:MAX_OUTLIERS]
        assert [means[window] for window in found] == pytest.approx(expected, abs=1e-3)
        assert [one["mean_nats"] for one in shown[measure]] == pytest.approx(expected, abs=1e-3)


def inspected(out: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert cli.main(["inspect", out, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def window_means(finished: JobResult, quantity: str) -> dict[tuple[str, int], float]:
    """The mean of a stored quantity over each window of at least `MIN_ROWS` rows, by shard and index."""
    means = {}
    for entry, block in zip(finished.snapshot.shards(), blocks(finished.out), strict=True):
        for window, (start, stop) in enumerate(itertools.pairwise(block.windows.window_offsets.tolist())):
            values = np.abs(getattr(block.targets, quantity)[start:stop])
            if (~np.isnan(values)).sum() >= MIN_ROWS:
                means[entry.name, window] = float(np.nanmean(values))
    return means
