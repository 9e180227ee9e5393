import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from logitcask.schemas.stats.outlier_windows import (
    HIGHEST_LOSS,
    LOWEST_LOSS,
    MIN_ROWS,
    NUM_EXTREMES,
    Extreme,
    extremes_from_json,
    find_extremes,
    merge_extremes,
)

found = st.builds(Extreme, shard=st.sampled_from("abc"), window=st.integers(0, 50), mean_steps=st.integers(0, 9))
pieces = st.lists(st.lists(found, max_size=8, unique=True).map(lambda one: {HIGHEST_LOSS: tuple(one)}), max_size=5)


@given(pieces, st.randoms(use_true_random=False))
def test_merging_in_any_order_and_in_steps_keeps_the_largest_of_all(pieces, random):
    everything = sorted(
        (one for piece in pieces for one in piece[HIGHEST_LOSS]),
        key=lambda one: (-one.mean_steps, one.shard, one.window),
    )
    shuffled = random.sample(pieces, len(pieces))
    merged = merge_extremes([merge_extremes(shuffled[:2]), *shuffled[2:]])
    assert merged.get(HIGHEST_LOSS, ()) == tuple(everything[:NUM_EXTREMES])


def test_short_windows_are_never_extreme(windows, targets):
    extremes = find_extremes("shard", windows, targets)
    named = {one.window for found in extremes.values() for one in found}
    for window in named:
        rows = slice(windows.window_offsets[window], windows.window_offsets[window + 1])
        assert targets.has_target()[rows].sum() >= MIN_ROWS
    assert 3 not in named


def test_lowest_is_the_other_end(windows, targets):
    extremes = find_extremes("shard", windows, targets)
    assert extremes[LOWEST_LOSS] == tuple(reversed(extremes[HIGHEST_LOSS]))


def test_extremes_survive_json(windows, targets):
    extremes = find_extremes("shard", windows, targets)
    value = {measure: [asdict(one) for one in found] for measure, found in extremes.items()}
    assert extremes_from_json(json.loads(json.dumps(value))) == extremes
