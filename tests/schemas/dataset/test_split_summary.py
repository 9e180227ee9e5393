"""Totals over shards are the sums of their records, in whatever order and in whatever pieces."""

import json
from dataclasses import asdict

import pytest
from random_shards import THREE_SHARDS, write_random_dataset

from logitcask.schemas.checked_json import convert
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.shard_view import stored_record
from logitcask.schemas.dataset.split_summary import SplitSummary, sum_records, sum_summaries


@pytest.fixture
def records(tmp_path) -> list[UnitRecord]:
    snapshot = write_random_dataset(str(tmp_path), THREE_SHARDS)
    return [stored_record(snapshot, entry) for entry in snapshot.shards()]


def test_records_are_summed_by_split(records):
    splits = sum_records(records)
    assert splits.keys() == {"train", "held-out"}
    for split, summary in splits.items():
        own = [record for record in records if record.split == split]
        assert summary.num_shards == len(own)
        for name in ("num_windows", "num_positions", "num_documents", "size_bytes"):
            assert getattr(summary, name) == sum(getattr(record, name) for record in own)
        assert summary.column_bytes["q"] == sum(record.column_bytes["q"] for record in own)


def test_order_and_grouping_do_not_matter(records):
    whole = sum_records(records)
    assert sum_records(records[1:], before=sum_records(records[:1])) == whole
    assert sum_records(reversed(records)) == whole
    assert sum_summaries(whole.values()) == sum_summaries(SplitSummary.of_record(record) for record in records)


def test_a_summary_of_the_first_release_lacks_the_later_fields(records):
    summary = SplitSummary.of_record(records[0])
    stored = json.loads(json.dumps(asdict(summary)))
    assert convert(stored, SplitSummary) == summary
    older = {name: one for name, one in stored.items() if name not in ("by_source", "extremes", "costs")}
    read = convert(older, SplitSummary)
    assert (read.by_source, read.extremes, read.costs) == ({}, {}, {})
    assert read.statistics == summary.statistics
