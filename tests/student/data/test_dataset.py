"""Random access to windows over shards."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from logitcask.schemas.dataset.shard_view import stored_record
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.errors import (
    CorruptShardError,
    FingerprintMismatchError,
    IncompleteDatasetError,
    MissingShardError,
    UsageError,
)
from logitcask.schemas.format.reader import ShardReader
from logitcask.student.data.dataset import SoftTargetDataset


def shard_files(url: str | Path, split: str = "train") -> list[Path]:
    return sorted(Path(url).glob(f"targets/{split}/*.parquet"))


def copy_of(url: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(url, tmp_path / "copy"))


def test_windows_are_counted_over_shards_in_order(dataset_url):
    dataset = SoftTargetDataset(dataset_url)
    assert len(dataset) == 12
    with ShardReader(str(shard_files(dataset_url)[1])) as reader:
        expected = reader.read(2, 3)
    sample = dataset[9]
    np.testing.assert_array_equal(sample.windows.token, expected.windows.token)
    found = sample.targets.decode()
    np.testing.assert_array_equal(found.head_log_probs, expected.targets.head_log_probs)
    np.testing.assert_array_equal(found.log_tail, expected.targets.log_tail)
    assert sample.index == 9


def test_a_window_and_its_targets_have_the_same_number_of_rows(dataset_url):
    dataset = SoftTargetDataset(dataset_url)
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample.windows.num_windows == 1
        np.testing.assert_array_equal(sample.targets.has_target(), sample.windows.has_target())


def test_windows_are_correct_when_the_cache_holds_one_block(dataset_url):
    roomy, tight = SoftTargetDataset(dataset_url), SoftTargetDataset(dataset_url, cache_bytes=1)
    for index in [0, 11, 3, 7, 0, 6]:
        np.testing.assert_array_equal(roomy[index].windows.token, tight[index].windows.token)


@pytest.mark.parametrize("index", [-1, 12])
def test_a_window_that_does_not_exist_is_an_index_error(dataset_url, index):
    with pytest.raises(IndexError):
        SoftTargetDataset(dataset_url)[index]


def test_a_pickled_copy_opens_its_own_files(dataset_url):
    dataset = SoftTargetDataset(dataset_url)
    expected = dataset[4].windows.token
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset))[4].windows.token, expected)


def test_a_window_is_described_by_its_shard_and_number(dataset_url):
    assert SoftTargetDataset(dataset_url).describe(8) == f"{shard_files(dataset_url)[1]} window 1"


def test_the_held_out_split_has_its_own_windows(dataset_url):
    assert len(SoftTargetDataset(dataset_url, "held-out")) == 3


def test_a_split_without_windows_is_refused(write_dataset, tmp_path):
    with pytest.raises(UsageError, match="no held-out windows"):
        SoftTargetDataset(write_dataset(tmp_path, {"train": [2]}), "held-out")


def test_a_directory_without_a_snapshot_is_refused(tmp_path):
    with pytest.raises(IncompleteDatasetError):
        SoftTargetDataset(str(tmp_path))


def test_a_missing_shard_is_named(dataset_url, tmp_path):
    copy = copy_of(dataset_url, tmp_path)
    shard_files(copy)[1].unlink()
    dataset = SoftTargetDataset(str(copy))
    dataset[0]
    with pytest.raises(MissingShardError, match=shard_files(dataset_url)[1].name):
        dataset[7]


def test_a_shard_with_another_footer_is_refused(dataset_url, tmp_path):
    copy = copy_of(dataset_url, tmp_path)
    first, second = shard_files(copy)
    shutil.copyfile(first, second)
    with pytest.raises(CorruptShardError, match="footer"):
        SoftTargetDataset(str(copy))[7]


def test_shards_of_different_tokenizers_are_not_mixed(write_dataset, tokenizer_info, tmp_path):
    write_dataset(tmp_path, {"train": [1]})
    write_dataset(tmp_path / "other", {"train": [1]}, tokenizer=tokenizer_info(vocabulary="b" * 32))
    shutil.copyfile(shard_files(tmp_path / "other")[0], tmp_path / "targets/train/second.parquet")
    records = []
    for path, name in ((tmp_path, "000000"), (tmp_path / "other", "second")):
        snapshot = load_snapshot(str(path))
        records.append(replace(stored_record(snapshot, snapshot.shards()[0]), name=name))
    fields = {"complete": True, "identity": snapshot.identity, "num_documents_in": 0, "rejected": {}}
    write_draft(str(tmp_path), Draft.of_records(records, **fields))
    with pytest.raises(FingerprintMismatchError, match="other settings"):
        SoftTargetDataset(str(tmp_path))[1]


def test_loader_workers_read_the_same_windows(dataset_url):
    dataset = SoftTargetDataset(dataset_url)
    dataset[0]
    loader = DataLoader(dataset, batch_size=None, sampler=[5, 1, 8], num_workers=1, collate_fn=lambda sample: sample)
    for sample, index in zip(loader, [5, 1, 8], strict=True):
        np.testing.assert_array_equal(sample.windows.token, dataset[index].windows.token)


def test_the_entropy_is_not_read(write_dataset, tmp_path):
    """Nothing is learned from the entropy, so its column costs a run nothing."""
    dataset = SoftTargetDataset(write_dataset(tmp_path, {"train": [2]}, extras=True))
    with ShardReader(str(shard_files(tmp_path)[0])) as reader:
        assert "entropy" in reader.options
    targets = dataset[0].targets
    assert targets.entropy is None
    assert list(targets.tempered_log_tails) == [2.0]
