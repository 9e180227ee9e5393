"""One annotation unit: batches that fit, an order of steps that leaves nothing half done."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.annotating import score_windows
from pipeline.heartbeats import Heartbeats
from schemas.targets import Part, Targets, Windows
from teacher.packing import batches


def offsets(lengths: list[int]) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


@given(st.lists(st.integers(1, 64), max_size=40), st.integers(1, 200))
def test_every_window_is_in_one_batch_and_padded_batches_fit(lengths: list[int], batch_tokens: int) -> None:
    found = list(batches(offsets(lengths), batch_tokens))
    assert [index for start, stop in found for index in range(start, stop)] == list(range(len(lengths)))
    for start, stop in found:
        assert stop - start == 1 or max(lengths[start:stop]) * (stop - start) <= batch_tokens
    for (start, stop), _ in itertools.pairwise(found):
        assert max(lengths[start : stop + 1]) * (stop + 1 - start) > batch_tokens


class CountingScorer:
    """An exact fake: a row's only target entry is its own token, certain."""

    vocab_size = 100
    environment: dict = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def score(self, windows: Windows) -> Targets:
        self.batch_sizes.append(windows.num_positions)
        zeros = np.zeros(windows.num_positions, np.float32)
        return Targets(
            head_ids=windows.token,
            head_log_probs=zeros,
            head_offsets=np.arange(windows.num_positions + 1),
            log_tail=np.full_like(zeros, -np.inf),
            log_next=zeros,
            entropy=zeros,
            top1_ids=windows.token,
        )


def test_targets_come_back_in_the_order_of_the_windows() -> None:
    windows = Windows(
        token=np.arange(50, dtype=np.int32),
        kind=np.zeros(50, np.uint8),
        part=np.repeat(np.arange(5, dtype=np.int32), 10),
        window_offsets=np.arange(0, 51, 10),
        parts=tuple(Part(id=str(n), source=str(n), offset=0) for n in range(5)),
    )
    scorer = CountingScorer()
    targets = score_windows(windows, scorer, 20, Heartbeats())
    assert targets.head_ids.tolist() == list(range(50))
    assert scorer.batch_sizes == [20, 20, 10]
