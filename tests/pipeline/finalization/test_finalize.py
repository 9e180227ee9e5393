"""Finalization: a snapshot of what storage has, from records or from their segments."""

from token_shards import reject, token_shards, unit_table

from logitcask.pipeline.finalization.finalize import (
    TokenizedCorpus,
    finalize,
    gather_segments,
    read_tokenized_corpus,
)
from logitcask.pipeline.finalization.segments import UnitTotals
from logitcask.pipeline.units.token_units import TokenUnit
from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.token_unit_record import TokenUnitRecord, token_unit_record_path
from logitcask.schemas.seals import create_sealed


def test_annotation_units_come_from_the_records_of_token_units(dataset_url: str) -> None:
    units = [TokenUnit(name=f"{index:06d}-abc", slices=(), size_bytes=1) for index in range(3)]
    for unit in units[:2]:
        record = TokenUnitRecord(name=unit.name, num_documents=5, rejected={"empty": 1}, shards=tuple(token_shards(2)))
        create_sealed(storage.join(dataset_url, token_unit_record_path(unit.name)), record.to_json())
    tokenized = read_tokenized_corpus(dataset_url, units, "teacher")
    assert (len(tokenized.units), tokenized.num_missing_units) == (4, 1)
    assert tokenized.totals == UnitTotals(num_units=2, num_documents=10, rejected={"empty": 2})


def test_the_segment_of_a_finished_block_replaces_its_records(dataset_url: str) -> None:
    units = unit_table(12)
    reject(dataset_url, units[0:7])
    gather_segments(dataset_url, units, 0, 12, block_units=4)
    assert len(storage.list_files(storage.join(dataset_url, "segments"))) == 1
    for unit in units[0:4]:
        storage.remove(storage.join(dataset_url, f"targets/{unit.split}/{unit.name}.json"))
    tokenized = TokenizedCorpus(units=units, totals=UnitTotals(num_documents=24), num_missing_units=0)
    snapshot = finalize(dataset_url, Identity(), tokenized, block_units=4)
    assert (snapshot.rejected, snapshot.num_missing_units, snapshot.complete) == ({"nan": 14}, 5, False)
