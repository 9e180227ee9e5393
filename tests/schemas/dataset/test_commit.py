"""Committing: whoever comes second reads the first back; what is lost is rebuilt; what does not fit is named."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from logitcask.schemas.dataset.commit import REBUILT_NOTE, commit_record, commit_shard, finished_record
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.format.metadata import ShardMetadata, TokenizerInfo
from logitcask.schemas.format.targets import Part, Windows
from logitcask.schemas.format.writer import EncodedShard, encode_shard

RECORD = UnitRecord(name="u", kind="tokens", split="train", num_documents=1, timings={"by": "me"})
TOKENIZER = TokenizerInfo(
    name="t", fingerprint="f", vocabulary_fingerprint="v", vocab_size=100, bos_id=None, eos_id=None
)


def shard(token: int) -> EncodedShard:
    windows = Windows(
        token=np.full(5, token, np.int32),
        kind=np.zeros(5, np.uint8),
        part=np.zeros(5, np.int32),
        window_offsets=np.array([0, 5]),
        parts=(Part(id="d", source="s", offset=0),),
    )
    metadata = ShardMetadata(kind="tokens", split="train", window_tokens=8, tokenizer=TOKENIZER)
    return encode_shard(windows, None, metadata)


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


def test_of_two_attempts_with_other_bytes_the_first_stands(tmp_path: Path) -> None:
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


def test_a_lost_shard_has_to_be_done_again_and_must_come_out_the_same(tmp_path: Path) -> None:
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


def test_a_damaged_shard_is_not_taken_for_whole(tmp_path: Path) -> None:
    (tmp_path / "tokens/train").mkdir(parents=True)
    (tmp_path / "tokens/train/u.parquet").write_bytes(shard(1).data[:-1])
    with pytest.raises(CorruptShardError, match="not a whole Parquet file"):
        finished_record(str(tmp_path), "tokens", "train", "u")


def test_nothing_stands_where_nothing_was_committed(tmp_path: Path) -> None:
    assert finished_record(str(tmp_path), "tokens", "train", "u") is None


def test_a_unit_that_was_set_aside_stays_so(tmp_path: Path) -> None:
    rejected = dataclasses.replace(RECORD, status="rejected", rejected={"non_finite": 1})
    commit_record(str(tmp_path), rejected)
    assert finished_record(str(tmp_path), "tokens", "train", "u") == rejected
