"""A shard without what rules leave out: stored numbers are moved, never decoded and encoded again."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from logitcask.schemas import storage
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.rules import Rule
from logitcask.schemas.dataset.shard_view import open_shard, stored_record
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot, load_snapshot
from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.maintenance.rewrite_shard import copy_shard, rewrite_shard, rewritten_name
from logitcask.schemas.maintenance.select_forget import forget_documents, select_rows


@pytest.fixture
def out(annotated_copy) -> str:
    return annotated_copy


def first_of(snapshot: Snapshot) -> ShardEntry:
    return snapshot.shards("train")[0]


def without_name(record: UnitRecord) -> UnitRecord:
    extremes = {
        measure: tuple(dataclasses.replace(one, shard="") for one in found)
        for measure, found in record.extremes.items()
    }
    return dataclasses.replace(record, name="", extremes=extremes)


def test_targets_that_stay_are_the_same_bytes(out, tmp_path):
    base = load_snapshot(out)
    stored = pq.read_table(base.shard_url(first_of(base)))
    with ShardReader(base.shard_url(first_of(base))) as reader:
        stays = np.array([part.id != "a0-0" for part in reader.parts])[reader.read_parts()]
    snapshot = forget_documents(out, ["a0-0"]).snapshot
    copy_shard(snapshot, first_of(snapshot), str(tmp_path / "copy"), "a")
    table = pq.read_table(tmp_path / "copy/targets/train/a.parquet")
    for name in ("token", "kind", "ids", "q", "tail", "next_q", "entropy"):
        assert table[name].to_pylist() == stored.filter(stays)[name].to_pylist()


def test_a_rewritten_shard_reads_as_the_rules_showed_it(out, tmp_path, contents):
    snapshot = select_rows(out, Rule(min_entropy=1.8, sources=("*/a0.txt#0", "*/a0.txt#1"))).snapshot
    (entry,) = snapshot.shards("train")
    record = copy_shard(snapshot, entry, str(tmp_path / "copy"), "a")
    with open_shard(snapshot, entry) as shown, ShardReader(str(tmp_path / "copy/targets/train/a.parquet")) as copy:
        assert contents(copy.read()) == contents(shown.read())
    assert (record.num_windows, record.num_positions) == (entry.num_windows, entry.num_positions)
    assert record.environment["rewritten_from"] == entry.name
    assert record.statistics == snapshot.splits["train"].statistics


def test_without_rules_the_bytes_are_the_same(out):
    snapshot = load_snapshot(out)
    url = snapshot.shard_url(first_of(snapshot))
    data = storage.read_bytes(url)
    with ShardReader(url) as reader:
        assert rewrite_shard(reader, data, ()).data == data


def test_a_copy_under_another_name_is_the_same_shard(out, tmp_path):
    snapshot = load_snapshot(out)
    entry = first_of(snapshot)
    record = copy_shard(snapshot, entry, str(tmp_path / "copy"), "other")
    assert without_name(record) == without_name(stored_record(snapshot, entry))
    assert {one.shard for found in record.extremes.values() for one in found} == {"other"}
    copy = tmp_path / "copy/targets/train/other.parquet"
    assert copy.read_bytes() == storage.read_bytes(snapshot.shard_url(entry))


def test_the_name_follows_from_the_shard_and_its_rules(out):
    first = forget_documents(out, ["a0-0"]).snapshot
    second = forget_documents(out, ["a0-1"]).snapshot
    names = [rewritten_name(snapshot, first_of(snapshot)) for snapshot in (first, second, first)]
    assert names[0] == names[2] != names[1]
    assert names[0].startswith("a0-")


def test_a_damaged_file_is_not_copied(out, tmp_path):
    snapshot = load_snapshot(out)
    file = Path(snapshot.shard_url(first_of(snapshot)))
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CorruptShardError, match="digest"):
        copy_shard(snapshot, first_of(snapshot), str(tmp_path / "copy"), "a")
    assert not (tmp_path / "copy").exists()
