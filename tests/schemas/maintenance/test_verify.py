import dataclasses
import io
from typing import Any

import pyarrow.parquet as pq
import pytest
from edited_json import edit_json
from random_shards import IDENTITY

from logitcask.schemas.dataset.commit import commit_shard
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.layout import write_configuration
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.format.scheme import TopKScheme
from logitcask.schemas.format.writer import EncodedShard, describe_shard, encode_shard
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
    edit_json(tmp_path / "out/snapshots/000001.json", lambda value: value.update(num_documents_in=1))
    assert ("snapshots/000001.json", "CorruptShardError") in faults(out)


def test_an_incomplete_snapshot_is_a_fault(tmp_path):
    out = str(tmp_path / "half")
    write_configuration(out, identity=Identity(), environment={})
    write_draft(out, Draft.of_records([], complete=False, identity=Identity(), num_documents_in=3, rejected={}))
    assert faults(out) == [("snapshots/000001.json", "IncompleteDatasetError")]


def test_a_damaged_token_shard_is_found(out, tmp_path):
    tokens = tmp_path / "out/tokens/train"
    tokens.mkdir(parents=True)
    (tokens / "t-0.parquet").write_bytes(b"")
    assert faults(out) == [("tokens/train/t-0.parquet", "MissingShardError")]


def written(out: str, shard: EncodedShard, kind: Any = "targets", **identity: Any) -> str:
    """A dataset of one shard that is what its record and its snapshot say."""
    record = commit_shard(out, shard, UnitRecord(name="a", kind=kind, split="train"))
    listed = [record] if kind == "targets" else []
    changed = dataclasses.replace(IDENTITY, **identity)
    write_configuration(out, identity=changed, environment={})
    write_draft(out, Draft.of_records(listed, complete=True, identity=changed, num_documents_in=0, rejected={}))
    return out


def whats(out: str) -> list[str]:
    return [fault.what for fault in verify.verify(out).faults]


def without_checksums(shard: EncodedShard, windows) -> EncodedShard:
    sink, metadata = io.BytesIO(), pq.read_metadata(io.BytesIO(shard.data)).metadata
    table = pq.read_table(io.BytesIO(shard.data))
    with pq.ParquetWriter(sink, table.schema.remove_metadata(), store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({key.decode(): value.decode() for key, value in metadata.items()})
    return describe_shard(sink.getvalue(), windows)


def test_pages_without_checksums_are_found(tmp_path, encoded, windows):
    found = whats(written(str(tmp_path / "out"), without_checksums(encoded, windows)))
    assert len(found) == 9
    assert all("pages without a checksum" in what for what in found)


def test_pages_without_checksums_are_found_in_token_shards(tmp_path, windows):
    shard = encode_shard(windows, None, IDENTITY.shard_metadata("tokens", "train"))
    assert whats(written(str(tmp_path / "sound"), shard, "tokens")) == []
    found = whats(written(str(tmp_path / "out"), without_checksums(shard, windows), "tokens"))
    assert [what.partition(":")[2] for what in found] == [" 2 pages without a checksum"] * 4


def test_rows_that_break_a_rule_are_found(tmp_path, windows, targets, metadata):
    wrong = dataclasses.replace(targets, log_tail=targets.log_tail + 1)
    found = whats(written(str(tmp_path / "out"), encode_shard(windows, wrong, metadata)))
    assert found == ["head and tail do not add up to one within 2 % (first in row 0)"]


@pytest.mark.parametrize(
    ("changes", "identity", "what"),
    [
        ({"split": "held-out"}, {}, "a shard of held-out targets, listed as one of train targets"),
        ({}, {"scheme": TopKScheme(k=40)}, "scheme.kind: 'topk' in the snapshot, 'threshold' in the shard"),
        ({}, {"window_tokens": 128}, "window_tokens: 128 in the snapshot, 64 in the shard"),
        ({}, {"temperatures": (2.0,)}, "temperatures: [2.0] in the snapshot, None in the shard"),
        ({}, {"entropy": False}, "entropy: False in the snapshot, True in the shard"),
    ],
)
def test_a_shard_that_is_not_what_the_snapshot_says_is_found(
    tmp_path, windows, targets, metadata, changes, identity, what
):
    shard = encode_shard(windows, targets, dataclasses.replace(metadata, **changes))
    found = whats(written(str(tmp_path / "out"), shard, **identity))
    assert what in found


def test_what_the_snapshot_does_not_know_is_no_fault(tmp_path, encoded):
    unknown = dict.fromkeys(("tokenizer", "teacher", "scheme", "window_tokens", "algorithm_version", "format_version"))
    assert whats(written(str(tmp_path / "out"), encoded, **unknown)) == []


def test_a_token_shard_in_another_split_is_found(tmp_path, windows):
    shard = encode_shard(windows, None, IDENTITY.shard_metadata("tokens", "held-out"))
    found = whats(written(str(tmp_path / "out"), shard, "tokens"))
    assert found == ["a shard of held-out tokens, among train tokens"]
