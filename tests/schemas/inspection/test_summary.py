"""The summary comes from the snapshot alone; older snapshots give what they hold."""

import pytest
from edited_json import write_as_first_release

from logitcask.schemas import storage
from logitcask.schemas.checked_json import parse_json
from logitcask.schemas.dataset.layout import record_path
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.inspection.summary import describe
from logitcask.schemas.stats.target_statistics import Statistics


def test_sources_add_up_to_the_total(seen):
    description = describe(seen)
    sources, total = description["sources"], description["total"]
    assert set(sources) == {"corpus", "news"}
    for key in ("tokens", "documents", "targets", "labels"):
        assert sum(source[key] for source in sources.values()) == total[key]
    columns = seen.total().column_bytes
    assert sum(source["estimated_bytes"] for source in sources.values()) == pytest.approx(sum(columns.values()), abs=2)


def test_outliers_are_the_windows_with_the_largest_means(seen, shards):
    description = describe(seen)
    _, _, windows, targets = shards[0]
    means = {}
    for window in range(windows.num_windows):
        rows = slice(windows.window_offsets[window], windows.window_offsets[window + 1])
        losses = -targets.log_next[rows][targets.has_label()[rows]]
        if len(losses) >= 32:
            means[window] = losses.mean()
    first = description["outliers"]["highest_loss"][0]
    assert (first["shard"], first["window"]) == ("shard-0", max(means, key=means.__getitem__))
    assert first["mean_nats"] == pytest.approx(max(means.values()), abs=1e-5)


def test_costs_come_from_the_timings_of_records(seen, windows):
    (cost,) = describe(seen)["cost"]["devices"].values()
    assert cost["worker_seconds"] == 2 * (2.0 + 0.25)
    assert cost["seconds_by_phase"] == {"encode": 1.0, "finish": 0.5, "forward": 3.0, "score": 4.0}
    assert cost["tokens_per_second"] == 2 * windows.num_positions / 3.0
    assert cost["flop_per_second_lower_bound"] == 2 * 10_000 * cost["tokens_per_second"]


def test_a_snapshot_of_the_first_release_can_be_described(seen, tmp_path):
    def change(value):
        for split in value["splits"].values():
            for key in ("by_source", "extremes", "costs"):
                del split[key]
            for key in ("wide", "sample_entries", "sample_draws"):
                del split["statistics"][key]

    write_as_first_release(tmp_path / "seen/snapshots/000001.json", change)
    description = describe(load_snapshot(seen.url))
    assert (description["sources"], description["outliers"], description["cost"]["devices"]) == ({}, {}, {})
    assert (describe(seen)["sealed"], description["sealed"]) == (True, False)
    assert description["total"]["wide"]["rows"] == 0
    assert description["total"]["tokens"] == seen.total().num_positions


def test_records_of_the_first_release_can_be_read(seen):
    record = parse_json(storage.read_bytes(storage.join(seen.url, record_path("targets", "train", "shard-0"))))
    whole = UnitRecord.from_json(record)
    assert whole.by_source["corpus"].statistics.targets == whole.statistics.targets  # pyright: ignore
    del record["by_source"], record["extremes"], record["statistics"]["wide"]
    old = UnitRecord.from_json(record)
    assert (old.by_source, old.extremes) == ({}, {})
    assert isinstance(old.statistics, Statistics)
