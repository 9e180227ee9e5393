"""Windows into tensors: nothing shifted, nothing lost, filling never scored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from logitcask.student.data.collator import collate, count_positions, targets_of
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.losses.targets import NO_LABEL


@pytest.fixture(scope="module")
def samples(dataset_url):
    dataset = SoftTargetDataset(dataset_url)
    return [dataset[index] for index in (2, 9, 0)]  # 22, 22 and 24 positions


def test_each_window_is_a_row_and_shorter_windows_are_padded(samples):
    batch = collate(samples)
    assert batch["input_ids"].shape == (3, 24)
    assert batch["num_positions"] == sum(sample.windows.num_positions for sample in samples) == 68
    for row, sample in enumerate(samples):
        np.testing.assert_array_equal(batch["input_ids"][row, : sample.windows.num_positions], sample.windows.token)


def test_position_ids_restart_at_parts_and_at_padding(samples):
    positions = collate(samples)["position_ids"]
    for row, sample in enumerate(samples):
        starts = np.flatnonzero(sample.windows.part_starts()).tolist()
        if sample.windows.num_positions < 24:
            starts.append(sample.windows.num_positions)
        assert (positions[row] == 0).nonzero().squeeze(-1).tolist() == starts


def test_scored_rows_have_targets_and_labels_are_next_tokens_of_the_part(samples):
    batch = collate(samples)
    flat_ids = batch["input_ids"].flatten()
    row = 0
    for place, sample in enumerate(samples):
        ends = sample.windows.part_ends()
        for position in np.flatnonzero(sample.windows.has_target()):
            assert batch["scored_rows"][row] == place * 24 + position
            label = NO_LABEL if ends[position] else flat_ids[place * 24 + position + 1]
            assert batch["labels"][row] == label
            row += 1
    assert row == len(batch["labels"])


def test_each_scored_row_keeps_its_own_head_and_tail(samples):
    targets = targets_of(collate(samples), vocab_size=48)
    row = 0
    for sample in samples:
        theirs = sample.targets.decode()
        for position in np.flatnonzero(theirs.has_target()):
            ours = targets.select(row, row + 1)
            entries = slice(theirs.head_offsets[position], theirs.head_offsets[position + 1])
            np.testing.assert_array_equal(ours.head_ids, theirs.head_ids[entries])
            # Both decode with sums in float64; the last bit of the float32 result may differ.
            np.testing.assert_allclose(ours.head_log_probs, theirs.head_log_probs[entries], rtol=2e-7)
            np.testing.assert_allclose(ours.log_tail, theirs.log_tail[[position]], rtol=2e-7)
            row += 1
    assert targets.has_target.all()


@pytest.fixture(scope="module")
def richer_samples(write_dataset, tmp_path_factory):
    """Windows whose targets have two replicas of a tail sample and a tail at temperature 2."""
    dataset = SoftTargetDataset(write_dataset(tmp_path_factory.mktemp("richer"), {"train": [3]}, extras=True))
    return [dataset[index] for index in range(3)]


def test_each_scored_row_keeps_its_draws_and_tempered_tail(richer_samples):
    targets = targets_of(collate(richer_samples), vocab_size=48)
    row = 0
    for sample in richer_samples:
        theirs = sample.targets
        for position in np.flatnonzero(theirs.has_target()):
            ours = targets.select(row, row + 1)
            np.testing.assert_array_equal(
                ours.sample_ids, theirs.tail_samples[0].select_rows(position, position + 1).ids
            )
            assert ours.tempered_log_tails[2.0].item() == theirs.tempered_log_tails[2.0][position]
            row += 1
    assert targets.num_positions == row


def test_the_epoch_chooses_the_replica_in_turn(richer_samples):
    for epoch in range(4):
        batch = collate([replace(sample, epoch=epoch) for sample in richer_samples])
        replicas = [sample.targets.tail_samples[epoch % 2].ids for sample in richer_samples]
        np.testing.assert_array_equal(batch["sample_ids"], np.concatenate(replicas))


def test_windows_of_two_epochs_may_share_a_batch(richer_samples):
    batch = collate([richer_samples[0], replace(richer_samples[1], epoch=1)])
    expected = [richer_samples[0].targets.tail_samples[0].ids, richer_samples[1].targets.tail_samples[1].ids]
    np.testing.assert_array_equal(batch["sample_ids"], np.concatenate(expected))


def test_targets_and_labels_are_counted_separately(samples):
    batch = collate(samples)
    num_targets = sum(int(sample.windows.has_target().sum()) for sample in samples)
    num_labels = sum(int(sample.windows.has_label().sum()) for sample in samples)
    assert num_targets > num_labels
    assert count_positions([batch, batch]).tolist() == [2 * num_targets, 2 * num_labels]
    assert torch.equal(count_positions([]), torch.tensor([0, 0]))
