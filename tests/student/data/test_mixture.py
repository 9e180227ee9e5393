"""Several datasets as one, and one run over them."""

import numpy as np
import pytest

from logitcask.schemas.errors import FingerprintMismatchError, UsageError, VocabularyError
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.data.mixture import MixedDataset


@pytest.fixture
def other(write_dataset, tmp_path) -> SoftTargetDataset:
    return SoftTargetDataset(write_dataset(tmp_path / "other", {"train": [3]}, seed=5))


def test_windows_are_numbered_over_the_datasets_in_order(dataset_url, other):
    first = SoftTargetDataset(dataset_url)
    mixed = MixedDataset([first, other])
    assert len(mixed) == 15
    np.testing.assert_array_equal(mixed[13].windows.token, other[1].windows.token)
    assert mixed[13].index == 13
    assert mixed.describe(13) == other.describe(1)
    with pytest.raises(IndexError):
        mixed[15]


def test_default_weights_are_the_numbers_of_windows(dataset_url, other):
    sources = MixedDataset([SoftTargetDataset(dataset_url), other]).sources()
    assert [(source.num_windows, source.weight) for source in sources] == [(12, 12.0), (3, 3.0)]


def test_each_dataset_needs_a_weight(dataset_url, other):
    with pytest.raises(UsageError, match="1 weights for 2 datasets"):
        MixedDataset([SoftTargetDataset(dataset_url), other], [1.0])


def test_datasets_with_different_vocabularies_are_not_mixed(dataset_url, write_dataset, tokenizer_info, tmp_path):
    url = write_dataset(tmp_path / "foreign", {"train": [1]}, tokenizer=tokenizer_info(vocabulary="b" * 32))
    with pytest.raises(
        FingerprintMismatchError, match=f"vocabulary fingerprints .*fingerprint {'a' * 32}; .*fingerprint {'b' * 32}"
    ):
        MixedDataset([SoftTargetDataset(dataset_url), SoftTargetDataset(url)])


def test_teachers_of_different_output_sizes_are_not_mixed(dataset_url, write_dataset, tmp_path):
    url = write_dataset(tmp_path / "wider", {"train": [1]}, vocab_size=50)
    with pytest.raises(VocabularyError, match="48 and 50"):
        MixedDataset([SoftTargetDataset(dataset_url), SoftTargetDataset(url)])


def test_shards_with_and_without_sampled_tails_are_not_mixed(dataset_url, write_dataset, tmp_path):
    url = write_dataset(tmp_path / "richer", {"train": [1]}, extras=True)
    with pytest.raises(UsageError, match="sampled tails"):
        MixedDataset([SoftTargetDataset(dataset_url), SoftTargetDataset(url)])
