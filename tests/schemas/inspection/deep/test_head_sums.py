"""Sums over heads from stored bytes equal those of decoded entries."""

from itertools import pairwise

import numpy as np
import pytest

from logitcask.schemas.format.targets import StoredTargets
from logitcask.schemas.inspection.deep.head_sums import sum_heads
from logitcask.schemas.stats.vocabulary_statistics import WIDTHS


def stored(rng: np.random.Generator, widths: list[int], without_target: tuple[int, ...] = ()) -> StoredTargets:
    """Heads of these widths, with random bytes."""
    num_rows, num_entries = len(widths), sum(widths)
    log_tail = np.log(rng.random(num_rows)).astype(np.float32)
    log_tail[list(without_target)] = np.nan
    return StoredTargets(
        head_ids=np.arange(num_entries, dtype=np.int32),
        head_q=rng.integers(0, 256, num_entries, dtype=np.uint8),
        head_offsets=np.cumsum([0, *widths]).astype(np.int64),
        log_tail=log_tail,
        log_next=np.full(num_rows, np.nan, np.float32),
        entropy=None,
    )


CASES = {
    "narrow": [3, 1, 2, 4, 8, 7, 9],
    "some empty": [0, 5, 0, 0, 16, 17, 0],
    "all empty": [0, 0, 0],
    "wider than the widest cut": [600, 512, 513, 1],
    "more than a chunk of rows": [1, 33, 2, 65] * 700,
    "no rows": [],
}


@pytest.mark.parametrize("widths", CASES.values(), ids=CASES)
def test_the_mass_of_the_k_largest_equals_that_of_decoded_rows(rng, widths):
    targets = stored(rng, widths)
    decoded = targets.decode()
    rows = np.split(np.exp(decoded.head_log_probs.astype(np.float64)), decoded.head_offsets[1:-1])
    expected = [sum(np.sort(row)[::-1][:k].sum() for row in rows) for k in WIDTHS]
    assert sum_heads(targets).mass_of_top_k == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("widths", CASES.values(), ids=CASES)
def test_tails_and_largest_entries_equal_the_decoded_ones(rng, widths):
    targets = stored(rng, widths)
    decoded, sums = targets.decode(), sum_heads(targets)
    assert targets.log_tail - sums.log_mass == pytest.approx(decoded.log_tail, rel=1e-6)
    entries = pairwise(decoded.head_offsets.tolist())
    largest = [decoded.head_log_probs[start:stop].max(initial=-np.inf) for start, stop in entries]
    assert sums.log_largest == pytest.approx(np.array(largest, np.float32), rel=1e-6)


def test_a_row_without_target_sums_to_one_as_in_decoding(rng):
    targets = stored(rng, [4, 0, 3], without_target=(1,))
    sums = sum_heads(targets)
    assert (sums.log_mass[1], sums.least_q[1], sums.log_largest[1]) == (0.0, 255, -np.inf)
    np.testing.assert_array_equal(np.isnan(targets.decode().log_tail), [False, True, False])
    assert sums.mass_of_top_k == pytest.approx(sum_heads(stored_rows(targets, [0, 2])).mass_of_top_k)


def stored_rows(targets: StoredTargets, rows: list[int]) -> StoredTargets:
    return StoredTargets.concatenate([targets.select_rows(row, row + 1) for row in rows])
