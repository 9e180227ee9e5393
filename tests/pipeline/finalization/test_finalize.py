"""Segments: what a later run reads instead of records says the same, and is made of finished blocks only."""

from pathlib import Path

import pytest

from logitcask.pipeline.finalization.finalize import TokenizedCorpus, finalize, gather_segments, read_tokenized_corpus
from logitcask.pipeline.finalization.segments import UnitTotals, segment_url
from logitcask.pipeline.units.annotation_units import AnnotationUnitTable, shard_table
from logitcask.pipeline.units.finished import finished_annotation_units, finished_token_units, stored_shards
from logitcask.pipeline.units.token_unit_record import TokenUnitRecord, token_unit_record_path
from logitcask.pipeline.units.token_units import TokenShard, TokenUnit
from logitcask.schemas import storage
from logitcask.schemas.dataset.commit import commit_record
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.errors import CorruptShardError


def token_shards(count: int) -> list[TokenShard]:
    return [
        TokenShard(
            name=f"{index // 4:06d}-{'h' if index % 4 == 3 else ''}{index % 4 % 3:04d}-abc",
            split="held-out" if index % 4 == 3 else "train",
            num_windows=1,
            num_positions=10 + index,
            num_documents=2,
            footer_digest=f"d{index}",
        )
        for index in range(count)
    ]


@pytest.fixture(params=["file", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "file" else f"memory://{tmp_path.name}"


def reject(out: str, units: AnnotationUnitTable, start: int, stop: int) -> None:
    """Sets units aside: finished, with no shard to be checked."""
    for unit in units[start:stop]:
        record = UnitRecord(name=unit.name, kind="targets", split=unit.split, status="rejected", rejected={"nan": 2})
        commit_record(out, record)


def test_a_plan_of_columns_is_the_list_it_stands_for() -> None:
    shards = token_shards(9)
    units = AnnotationUnitTable(shard_table(iter(shards)), "teacher")
    assert [unit.tokens for unit in units] == shards
    assert [units[index] for index in range(9)] == list(units) == [unit for block in units.blocks(4) for unit in block]
    assert len({unit.name for unit in units}) == len(units) == 9
    with pytest.raises(IndexError):
        units[9]


def test_what_stands_is_found_wherever_the_dataset_is(out: str) -> None:
    units = AnnotationUnitTable(shard_table(token_shards(8)), "teacher")
    reject(out, units, 0, 3)
    assert finished_annotation_units(out, units[0:8]) == {unit.name for unit in units[0:3]}
    storage.create(storage.join(out, "targets/train", f"{units[4].name}.parquet"), b"123")
    found = stored_shards(out, "targets", units[3:6])
    assert [(one.size_bytes, one.has_record) for one in found] == [(None, False), (3, False), (None, False)]


def test_token_units_are_finished_where_their_record_stands(out: str) -> None:
    units = [TokenUnit(name=f"{index:06d}-abc", slices=(), size_bytes=1) for index in range(3)]
    for unit in units[:2]:
        record = TokenUnitRecord(name=unit.name, num_documents=5, rejected={"empty": 1}, shards=tuple(token_shards(2)))
        storage.create_json(storage.join(out, token_unit_record_path(unit.name)), record.to_json())
    assert finished_token_units(out, units) == {"000000-abc", "000001-abc"}
    tokenized = read_tokenized_corpus(out, units, "teacher")
    assert (len(tokenized.units), tokenized.num_missing_units) == (4, 1)
    assert tokenized.totals == UnitTotals(num_units=2, num_documents=10, rejected={"empty": 2})


def test_a_segment_is_made_of_a_finished_block_and_says_what_its_records_said(out: str) -> None:
    units = AnnotationUnitTable(shard_table(token_shards(12)), "teacher")
    reject(out, units, 0, 7)
    gather_segments(out, units, 0, 12, block_units=4)
    assert len(storage.list_files(storage.join(out, "segments"))) == 1
    for unit in units[0:4]:
        storage.remove(storage.join(out, f"targets/{unit.split}/{unit.name}.json"))
    tokenized = TokenizedCorpus(units=units, totals=UnitTotals(num_documents=24), num_missing_units=0)
    snapshot = finalize(out, Identity(), tokenized, block_units=4)
    assert (snapshot.rejected, snapshot.num_missing_units, snapshot.complete) == ({"nan": 14}, 5, False)


def test_a_damaged_segment_is_named_and_can_be_removed(tmp_path: Path) -> None:
    out = str(tmp_path)
    units = AnnotationUnitTable(shard_table(token_shards(4)), "teacher")
    reject(out, units, 0, 4)
    gather_segments(out, units, 0, 4, block_units=4)
    [segment] = (tmp_path / "segments").iterdir()
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-20])
    with pytest.raises(CorruptShardError, match="remove it and run again"):
        gather_segments(out, units, 0, 4, block_units=4)
    segment.unlink()
    gather_segments(out, units, 0, 4, block_units=4)
    assert segment.read_bytes() == whole
    assert segment_url(out, segment.stem) == str(segment)
