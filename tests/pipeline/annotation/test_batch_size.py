"""The batch size that `auto` means."""

import pytest

from logitcask.pipeline.annotation.batch_size import (
    CPU_BATCH_TOKENS,
    GPU_BATCH_TOKENS,
    find_batch_tokens,
    largest_batch,
)
from logitcask.schemas.format.scheme import ThresholdScheme
from logitcask.teacher.scoring.protocol import ScorerSpec


def spec(device: str) -> ScorerSpec:
    return ScorerSpec(
        reference="nowhere",
        device=device,
        dtype="float32",
        attention="auto",
        num_threads=1,
        batch_tokens=0,
        row_chunk=256,
        scheme=ThresholdScheme(),
    )


@pytest.mark.parametrize(
    ("free_bytes", "batch"),
    [(10_000, 1024), (1_000_000, 1024), (2_570_000, 2048), (5_130_000, 4096), (5_100_000, 2048), (1 << 60, 131_072)],
)
def test_the_largest_batch_leaves_a_fifth_of_the_memory_free(free_bytes: int, batch: int) -> None:
    # 1,000 bytes per position and 8,000 in addition: 4,104,000 bytes for 4,096 positions are 80 % of 5,130,000.
    assert largest_batch(lambda tokens: 8_000 + 1_000 * tokens, free_bytes, 1024) == batch


def test_a_window_above_the_maximum_batch_is_scored_alone() -> None:
    assert largest_batch(lambda tokens: tokens, 1 << 60, 262_144) == 262_144
    assert find_batch_tokens(spec("cpu"), 32_768, in_process=True) == 32_768


def test_no_teacher_is_loaded_where_no_batch_is_tried() -> None:
    assert find_batch_tokens(spec("cpu"), 64, in_process=True) == CPU_BATCH_TOKENS
    assert find_batch_tokens(spec("cuda"), 64, in_process=False) == GPU_BATCH_TOKENS
