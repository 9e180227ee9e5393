"""The packed list of a snapshot's shards equals the list of their entries."""

import pytest

from logitcask.pipeline.finalization.packed_shard_list import PackedShardList, entry_rows
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.format.metadata import Split


def record(name: str, split: Split) -> UnitRecord:
    return UnitRecord(name=name, kind="targets", split=split, num_windows=1, num_positions=2, size_bytes=3, digest="d")


def test_entries_are_sorted_by_split_and_keep_the_order_within_it() -> None:
    packed = PackedShardList([entry_rows([record("a", "train"), record("b", "held-out")])])
    packed.add(entry_rows([record("c", "train"), record("d", "held-out")]))
    entries = list(packed)
    assert [(entry.split, entry.name) for entry in entries] == [
        ("held-out", "b"),
        ("held-out", "d"),
        ("train", "a"),
        ("train", "c"),
    ]
    assert entries[2].path == "targets/train/a.parquet"
    assert len(packed) == 4
    assert [packed[index] for index in range(4)] == entries
    assert packed[1:3] == entries[1:3]
    with pytest.raises(IndexError):
        packed[4]
