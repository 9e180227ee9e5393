"""Reading a dataset: blocks, shards, settings and text of one snapshot, with its rules applied."""

import numpy as np
import pytest
from random_shards import IDENTITY, VOCAB_SIZE, write_annotated_dataset, write_random_dataset

from logitcask.schemas import Dataset
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.dataset.vocabulary import write_vocabulary
from logitcask.schemas.errors import IncompleteDatasetError, UsageError
from logitcask.schemas.maintenance.select_forget import forget_documents


@pytest.fixture
def dataset(small_dataset) -> Dataset:
    return Dataset(small_dataset.url)


def test_it_states_its_settings_and_splits(dataset, small_dataset):
    assert dataset.snapshot == small_dataset
    assert dataset.identity == IDENTITY
    assert dataset.splits == ("held-out", "train")
    assert dataset.metadata == IDENTITY.shard_metadata("targets", "held-out")


def test_blocks_are_all_windows_of_a_split_with_their_targets(dataset):
    blocks = list(dataset.blocks("train"))
    assert sum(windows.num_windows for windows, _ in blocks) == dataset.snapshot.splits["train"].num_windows
    assert all((targets.has_target() == windows.has_target()).all() for windows, targets in blocks)
    assert sum(windows.num_positions for windows, _ in dataset.blocks()) == dataset.snapshot.total().num_positions
    assert all(targets.entropy is None for _, targets in dataset.blocks("train", options=()))


def test_a_shard_is_read_at_random(dataset):
    entry = dataset.shards("train")[1]
    with dataset.open(entry) as shard:
        whole, second = shard.read().windows, shard.read(1, 2).windows
    np.testing.assert_array_equal(second.token, whole.select(1, 2).token)


def test_the_rules_of_the_snapshot_are_applied(tmp_path):
    out = str(tmp_path / "out")
    write_annotated_dataset(out)
    forget_documents(out, ["a0-0"])
    ids = [{part.id for windows, _ in Dataset(out, number).blocks() for part in windows.parts} for number in (1, None)]
    assert ids[0] - ids[1] == {"a0-0"}


def test_the_vocabulary_is_that_of_the_tokenizer(dataset):
    with pytest.raises(UsageError, match="cannot be shown as text"):
        dataset.vocabulary()
    write_vocabulary(dataset.snapshot.url, [b"x"] * VOCAB_SIZE, dataset.metadata.tokenizer.vocabulary_fingerprint)
    assert dataset.vocabulary().text([1, 2]) == "xx"


def test_an_incomplete_or_empty_dataset_is_refused_by_name(tmp_path):
    with pytest.raises(IncompleteDatasetError):
        Dataset(str(tmp_path / "nowhere"))
    out = str(tmp_path / "empty")
    write_draft(out, Draft.of_records([], complete=False, identity=Identity(), num_documents_in=1, rejected={}))
    with pytest.raises(IncompleteDatasetError):
        Dataset(out)
    write_draft(out, Draft.of_records([], complete=True, identity=Identity(), num_documents_in=0, rejected={}))
    with pytest.raises(UsageError, match="no shards"):
        _ = Dataset(out).metadata


def test_an_older_snapshot_is_read_by_its_number(tmp_path):
    out = str(tmp_path / "out")
    first = write_random_dataset(out)
    write_draft(out, Draft.of_records([], complete=True, identity=IDENTITY, num_documents_in=0, rejected={}))
    assert Dataset(out).splits == ()
    assert Dataset(out, 1).snapshot == first
