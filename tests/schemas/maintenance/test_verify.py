import json

import pytest

from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.maintenance import verify


@pytest.fixture
def out(small_dataset) -> str:
    return small_dataset.url


@pytest.fixture
def shard(tmp_path, out):
    return tmp_path / "out/targets/train/000000.parquet"


def faults(out: str) -> list[tuple[str, str]]:
    return [(fault.path, fault.error) for fault in verify.verify(out).faults]


def test_a_sound_dataset_has_no_faults(out):
    result = verify.verify(out)
    assert result.faults == ()
    assert (result.num_shards, result.num_positions) == (3, 312)
    assert "all well" in result.text()


def test_a_flipped_bit_is_found(out, shard):
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(bytes(data))
    assert faults(out) == [("targets/train/000000.parquet", "CorruptShardError")]


def test_a_truncated_file_is_found(out, shard):
    shard.write_bytes(shard.read_bytes()[:-1])
    assert faults(out) == [("targets/train/000000.parquet", "CorruptShardError")]


def test_a_missing_shard_is_found(out, shard):
    shard.unlink()
    assert faults(out) == [("targets/train/000000.parquet", "MissingShardError")]


def test_a_missing_record_is_found(out, shard):
    shard.with_suffix(".json").unlink()
    assert faults(out) == [("targets/train/000000.parquet", "MissingShardError")]


def test_a_record_of_another_file_is_found(out, shard):
    shard.with_suffix(".json").write_bytes(shard.with_name("000001.json").read_bytes())
    assert faults(out) == [("targets/train/000000.parquet", "CorruptShardError")]


def test_every_fault_is_named(out, shard, tmp_path):
    shard.unlink()
    (tmp_path / "out/targets/held-out/000002.parquet").write_bytes(b"")
    assert len(faults(out)) == 2


def test_documents_that_are_not_accounted_for_are_found(out, tmp_path):
    file = tmp_path / "out/snapshots/000001.json"
    snapshot = json.loads(file.read_text())
    file.write_text(json.dumps({**snapshot, "num_documents_in": snapshot["num_documents_in"] + 1}))
    assert faults(out) == [("snapshots/000001.json", "CorruptShardError")]


def test_an_incomplete_snapshot_is_a_fault(tmp_path):
    out = str(tmp_path / "half")
    write_draft(out, Draft.of_records([], complete=False, identity=Identity(), num_documents_in=3, rejected={}))
    assert faults(out) == [("snapshots/000001.json", "IncompleteDatasetError")]


def test_a_damaged_token_shard_is_found(out, tmp_path):
    tokens = tmp_path / "out/tokens/train"
    tokens.mkdir(parents=True)
    (tokens / "t-0.parquet").write_bytes(b"")
    assert faults(out) == [("tokens/train/t-0.parquet", "MissingShardError")]
