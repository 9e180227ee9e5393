"""Global batches: a pure function of the order, the batch's number and size, however it is cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from logitcask.schemas.errors import UsageError
from logitcask.student.data.collator import collate
from logitcask.student.data.dataset import EpochWindows, SoftTargetDataset
from logitcask.student.data.global_batches import GlobalBatches, RankBatches
from logitcask.student.data.order import WindowOrder, WindowSource


def batches(num_windows: int = 13, **changes) -> GlobalBatches:
    order = WindowOrder(sources=(WindowSource(shard_windows=(num_windows,)),), seed=3)
    fields = {"order": order, "batch_size_windows": 4, "micro_batch_windows": 1, "num_batches": 7}
    return GlobalBatches(**{**fields, **changes})


@pytest.mark.parametrize(("num_ranks", "micro"), [(1, 1), (1, 4), (2, 1), (2, 2), (4, 1)])
def test_ranks_and_micro_batches_divide_the_same_global_batch(num_ranks, micro):
    whole = batches().order.take(20, 24)
    cut = batches(num_ranks=num_ranks, micro_batch_windows=micro)
    pieces = [cut.micro_batches(rank, 5) for rank in range(num_ranks)]
    for column in range(2):  # windows, epochs
        np.testing.assert_array_equal(np.concatenate([piece[column].ravel() for piece in pieces]), whole[column])
    assert all(piece[0].shape == (cut.micro_batches_per_rank, micro) for piece in pieces)


@given(consumed=st.integers(0, 7), ranks=st.sampled_from([(1, 2), (2, 4), (4, 1)]))
def test_a_run_resumed_with_other_processes_takes_the_same_windows(consumed, ranks):
    before, after = (batches(num_ranks=number) for number in ranks)
    taken = [_global_batches(before)[batch] for batch in range(consumed)]
    taken += [_global_batches(after)[batch] for batch in range(consumed, 7)]
    assert taken == _global_batches(batches())


def _global_batches(cut: GlobalBatches) -> list[list[tuple[int, int]]]:
    """What the ranks' samplers yield, put together again."""
    steps = cut.micro_batches_per_rank
    ranks = [list(RankBatches(cut, rank)) for rank in range(cut.num_ranks)]
    return [
        [pair for rank in ranks for micro in rank[batch * steps : (batch + 1) * steps] for pair in micro]
        for batch in range(cut.num_batches)
    ]


def test_the_sampler_yields_every_micro_batch_of_the_run():
    found = list(RankBatches(batches(micro_batch_windows=2), rank=0))
    assert len(found) == len(RankBatches(batches(micro_batch_windows=2), rank=0)) == 14
    assert [window for window, _ in found[2] + found[3]] == batches().windows(1)[0].tolist()


def test_the_sampler_names_the_epoch_of_each_window():
    pairs = [pair for batch in RankBatches(batches(micro_batch_windows=2), rank=0) for pair in batch]
    assert [epoch for _, epoch in pairs] == [place // 13 for place in range(28)]


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(UsageError, match="multiple of 6"):
        batches(num_ranks=2, micro_batch_windows=3)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_window_of_an_epoch_is_read_once_by_any_process(dataset_url, num_workers):
    dataset = SoftTargetDataset(dataset_url)
    epoch = batches(len(dataset), order=WindowOrder(sources=dataset.sources(), seed=3), num_batches=3)
    loader = DataLoader(
        EpochWindows(dataset), batch_sampler=RankBatches(epoch, 0), collate_fn=collate, num_workers=num_workers
    )
    found = [int(index) for batch in loader for index in batch["window_indices"]]
    assert sorted(found) == list(range(12))
    assert found == epoch.order.take(0, 12)[0].tolist()
