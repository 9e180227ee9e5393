"""Commits: a second attempt reads the first back; a lost record is rebuilt; files that do not fit are named."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from random_shards import IDENTITY, random_windows

from logitcask.schemas.dataset.commit import REBUILT_NOTE, commit_record, commit_shard, finished_record
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.format.writer import EncodedShard, encode_shard

RECORD = UnitRecord(name="u", kind="tokens", split="train", num_documents=1, timings={"by": "me"})


def shard(seed: int) -> EncodedShard:
    """A token shard of one window of five positions."""
    return encode_shard(
        random_windows(np.random.default_rng(seed), [5]), None, IDENTITY.shard_metadata("tokens", "train")
    )


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_the_record_describes_the_shard_that_was_committed(tmp_path: Path) -> None:
    record = commit_shard(str(tmp_path), shard(1), RECORD)
    data = (tmp_path / "tokens/train/u.parquet").read_bytes()
    assert (record.digest, record.size_bytes) == (shard(1).digest, len(data))
    assert (record.num_windows, record.num_positions, record.num_documents) == (1, 5, 1)
    assert finished_record(str(tmp_path), "tokens", "train", "u") == record


def test_a_second_attempt_changes_nothing_and_reads_the_first_back(tmp_path: Path) -> None:
    first = commit_shard(str(tmp_path), shard(1), RECORD)
    before = files(tmp_path)
    again = commit_shard(str(tmp_path), shard(1), dataclasses.replace(RECORD, timings={"by": "another"}))
    assert again == first
    assert files(tmp_path) == before


def test_the_first_of_two_attempts_with_different_bytes_stays(tmp_path: Path) -> None:
    first = commit_shard(str(tmp_path), shard(1), RECORD)
    before = files(tmp_path)
    assert commit_shard(str(tmp_path), shard(2), RECORD) == first
    assert files(tmp_path) == before


def test_a_lost_record_is_rebuilt_from_the_shard_and_says_so(tmp_path: Path) -> None:
    first = commit_shard(str(tmp_path), shard(1), RECORD)
    (tmp_path / "tokens/train/u.json").unlink()
    rebuilt = finished_record(str(tmp_path), "tokens", "train", "u")
    assert rebuilt is not None
    assert rebuilt.environment == {"note": REBUILT_NOTE}
    for name in ("digest", "footer_digest", "size_bytes", "num_windows", "num_positions", "num_documents"):
        assert getattr(rebuilt, name) == getattr(first, name)
    assert rebuilt.column_bytes == first.column_bytes
    assert (tmp_path / "tokens/train/u.json").exists()


def test_a_lost_shard_is_done_again_and_must_have_the_same_bytes(tmp_path: Path) -> None:
    first = commit_shard(str(tmp_path), shard(1), RECORD)
    (tmp_path / "tokens/train/u.parquet").unlink()
    assert finished_record(str(tmp_path), "tokens", "train", "u") is None
    assert commit_shard(str(tmp_path), shard(1), RECORD) == first
    (tmp_path / "tokens/train/u.parquet").unlink()
    with pytest.raises(CorruptShardError, match="remove both and run again"):
        commit_shard(str(tmp_path), shard(2), RECORD)


def test_a_record_of_another_shard_is_an_error(tmp_path: Path) -> None:
    commit_record(str(tmp_path), dataclasses.replace(RECORD, digest="sha256:0"))
    with pytest.raises(CorruptShardError, match=r"u\.json: the record says sha256:0"):
        commit_shard(str(tmp_path), shard(1), RECORD)


def test_a_damaged_shard_is_not_accepted(tmp_path: Path) -> None:
    (tmp_path / "tokens/train").mkdir(parents=True)
    (tmp_path / "tokens/train/u.parquet").write_bytes(shard(1).data[:-1])
    with pytest.raises(CorruptShardError, match="not a complete Parquet file"):
        finished_record(str(tmp_path), "tokens", "train", "u")


def test_there_is_no_record_where_nothing_was_committed(tmp_path: Path) -> None:
    assert finished_record(str(tmp_path), "tokens", "train", "u") is None


def test_a_rejected_unit_stays_rejected(tmp_path: Path) -> None:
    rejected = dataclasses.replace(RECORD, status="rejected", rejected={"non_finite": 1})
    commit_record(str(tmp_path), rejected)
    assert finished_record(str(tmp_path), "tokens", "train", "u") == rejected
