import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from logitcask.schemas.checked_json import convert
from logitcask.schemas.stats.outlier_windows import (
    HIGHEST_LOSS,
    LOWEST_LOSS,
    MAX_OUTLIERS,
    MIN_ROWS,
    OutlierWindow,
    OutlierWindows,
    find_outliers,
    merge_outliers,
)

found = st.builds(OutlierWindow, shard=st.sampled_from("abc"), window=st.integers(0, 50), mean_steps=st.integers(0, 9))
pieces = st.lists(st.lists(found, max_size=8, unique=True).map(lambda one: {HIGHEST_LOSS: tuple(one)}), max_size=5)


@given(pieces, st.randoms(use_true_random=False))
def test_merging_in_any_order_keeps_the_largest_of_all_pieces(pieces, random):
    everything = sorted(
        (one for piece in pieces for one in piece[HIGHEST_LOSS]),
        key=lambda one: (-one.mean_steps, one.shard, one.window),
    )
    shuffled = random.sample(pieces, len(pieces))
    merged = merge_outliers([merge_outliers(shuffled[:2]), *shuffled[2:]])
    assert merged.get(HIGHEST_LOSS, ()) == tuple(everything[:MAX_OUTLIERS])


def test_a_short_window_is_never_an_outlier(windows, targets):
    outliers = find_outliers("shard", windows, targets)
    named = {one.window for found in outliers.values() for one in found}
    for window in named:
        rows = slice(windows.window_offsets[window], windows.window_offsets[window + 1])
        assert targets.has_target()[rows].sum() >= MIN_ROWS
    assert 3 not in named


def test_the_lowest_loss_reverses_the_highest(windows, targets):
    outliers = find_outliers("shard", windows, targets)
    assert outliers[LOWEST_LOSS] == tuple(reversed(outliers[HIGHEST_LOSS]))


def test_outliers_survive_json(windows, targets):
    outliers = find_outliers("shard", windows, targets)
    value = {measure: [asdict(one) for one in found] for measure, found in outliers.items()}
    assert convert(json.loads(json.dumps(value)), OutlierWindows) == outliers
