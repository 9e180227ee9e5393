"""How windows are cut into sequences, and what long windows of small parts cost."""

import numpy as np
import pytest
import torch
from random_teachers import scorer_of
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from logitcask.schemas.format.scheme import ThresholdScheme
from logitcask.schemas.format.targets import Part, Windows
from logitcask.teacher.scoring.sequences import ALONE, Grouping, Sequences, forward_offsets


def window_of(lengths: list[int]) -> Windows:
    num_rows = sum(lengths)
    return Windows(
        token=(np.arange(num_rows, dtype=np.int32) * 31 + 7) % 97,
        kind=np.zeros(num_rows, np.uint8),
        part=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        window_offsets=np.array([0, num_rows], np.int64),
        parts=tuple(Part(id=str(n), source="s", offset=0) for n in range(len(lengths))),
    )


def passes_of(lengths: list[int], grouping: Grouping, batch_tokens: int = 1 << 30, **options: int) -> list[list[int]]:
    """The offsets of each forward pass over one window of such parts."""
    found = forward_offsets(window_of(lengths), grouping, batch_tokens=batch_tokens, **options)
    return [offsets.tolist() for offsets in found]


def test_windows_up_to_4096_rows_are_not_cut() -> None:
    assert passes_of([4000, 96], Grouping()) == [[0, 4096]]


def test_longer_windows_are_cut_between_parts_only() -> None:
    assert passes_of([3000, 1000, 97, 9000, 10], Grouping()) == [[0, 4000, 4097, 13097, 13107]]


def test_sequences_are_halved_to_save_memory() -> None:
    assert passes_of([2000, 2000, 10], Grouping(), 4096, num_halvings=1) == [[0, 2000], [2000, 4010]]


def test_batched_parts_are_sequences_that_share_a_pass() -> None:
    assert passes_of([5, 6, 7], Grouping(parts="batched")) == [[0, 5, 11, 18]]
    assert passes_of([5, 6, 7], Grouping(parts="batched"), 12) == [[0, 5, 11], [11, 18]]


def test_parts_alone_share_no_pass() -> None:
    assert passes_of([5, 6, 7], ALONE) == [[0, 5], [5, 11], [11, 18]]


def test_parts_on_two_sides_of_a_threshold_share_no_pass() -> None:
    packed, batched = (Grouping(parts=parts, thresholds=(6,)) for parts in ("packed", "batched"))
    assert passes_of([5, 6, 7, 9, 2], packed) == [[0, 11], [11, 27], [27, 29]]
    assert passes_of([5, 6, 7, 9, 2], batched) == [[0, 5, 11], [11, 18, 27], [27, 29]]


def test_rows_are_found_in_the_rectangle() -> None:
    windows = window_of([2, 3, 1])
    run = Sequences(windows, np.array([2, 5, 6]))
    assert run.token_BS.shape == (2, 3)
    assert run.token_BS.flat[run.places(np.array([0, 2, 4, 5]))].tolist() == windows.token[[2, 4, 5]].tolist()
    assert run.position_BS.tolist() == [[0, 1, 2], [0, 0, 1]]


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor that any operation returned."""

    num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returned = func(*args, **(kwargs or {}))
        for value in returned if isinstance(returned, tuple) else (returned,):
            if isinstance(value, torch.Tensor):
                self.num_bytes = max(self.num_bytes, value.untyped_storage().nbytes())
        return returned


@pytest.mark.parametrize(
    ("window", "part", "sequence"),
    [(4096, 128, 512), pytest.param(32_768, 512, 4096, marks=pytest.mark.slow)],
)
def test_a_long_window_of_small_parts_needs_no_mask_of_its_size(
    monkeypatch: pytest.MonkeyPatch, window: int, part: int, sequence: int
) -> None:
    monkeypatch.setattr("logitcask.teacher.scoring.sequences._SEQUENCE_TOKENS", sequence)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=window,
    )
    scorer = scorer_of(LlamaForCausalLM(config).eval(), ThresholdScheme(k=4), batch_tokens=sequence)
    with LargestTensor() as largest:
        targets = scorer.score(window_of([part] * (window // part)))
    assert targets.num_positions == window
    # A mask of the window in bool would be S² bytes; the masks of the sequences are in float32.
    assert largest.num_bytes <= 4 * sequence**2 < window**2 / 8
