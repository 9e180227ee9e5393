"""Finished units are found in storage, on a local disk and on an object store."""

from token_shards import reject, token_shards, unit_table

from logitcask.pipeline.units.finished import finished_annotation_units, finished_token_units, stored_shards
from logitcask.pipeline.units.token_units import TokenUnit
from logitcask.schemas import storage
from logitcask.schemas.dataset.token_unit_record import TokenUnitRecord, token_unit_record_path
from logitcask.schemas.seals import create_sealed


def test_stored_shards_and_finished_annotation_units_are_found(dataset_url: str) -> None:
    units = unit_table(8)
    reject(dataset_url, units[0:3])
    assert finished_annotation_units(dataset_url, units[0:8]) == {unit.name for unit in units[0:3]}
    storage.create(storage.join(dataset_url, "targets/train", f"{units[4].name}.parquet"), b"123")
    found = stored_shards(dataset_url, "targets", units[3:6])
    assert [(one.size_bytes, one.has_record) for one in found] == [(None, False), (3, False), (None, False)]


def test_token_units_with_a_record_are_finished(dataset_url: str) -> None:
    units = [TokenUnit(name=f"{index:06d}-abc", slices=(), size_bytes=1) for index in range(3)]
    for unit in units[:2]:
        record = TokenUnitRecord(name=unit.name, num_documents=5, rejected={}, shards=tuple(token_shards(2)))
        create_sealed(storage.join(dataset_url, token_unit_record_path(unit.name)), record.to_json())
    assert finished_token_units(dataset_url, units) == {"000000-abc", "000001-abc"}
