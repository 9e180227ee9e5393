import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from logitcask.schemas.checked_json import convert
from logitcask.schemas.stats.target_statistics import Histogram, Statistics

nats = hnp.arrays(np.float64, st.integers(0, 30), elements=st.one_of(st.floats(0, 40), st.just(np.inf)))


@given(nats, nats)
def test_histograms_of_parts_add_up_to_the_whole(a, b):
    assert Histogram.of(a) + Histogram.of(b) == Histogram.of(np.concatenate([a, b]))


def test_quantiles_are_within_a_bin_of_the_exact_ones():
    values = np.random.default_rng(0).exponential(2, 10_000)
    histogram = Histogram.of(values)
    for share in (0.1, 0.5, 0.9, 0.99):
        assert histogram.quantile(share) == pytest.approx(np.quantile(values, share), abs=1 / 16)
    assert histogram.mean() == pytest.approx(values.mean(), abs=1e-6)


def test_statistics_of_parts_add_up_to_the_whole(windows, targets):
    rows = windows.window_offsets[2]
    parts = [
        Statistics.of(windows.select(0, 2), targets.select_rows(0, rows)),
        Statistics.of(windows.select(2, 5), targets.select_rows(rows, windows.num_positions)),
    ]
    assert Statistics.merge(parts) == Statistics.of(windows, targets)
    assert Statistics.merge(reversed(parts)) == Statistics.of(windows, targets)


def test_the_summary_agrees_with_the_arrays(windows, targets):
    summary = Statistics.of(windows, targets).summary()
    rows, labels = targets.has_target(), targets.has_label()
    assert summary["targets"] == rows.sum()
    assert summary["teacher_loss_nats"] == pytest.approx(-targets.log_next[labels].mean(), abs=1e-6)
    assert summary["entropy_nats"]["mean"] == pytest.approx(targets.entropy[rows].mean(), abs=1e-6)
    assert summary["head_width"]["mean"] == pytest.approx(targets.head_widths()[rows].mean())
    assert summary["head_width"]["p50"] == np.quantile(targets.head_widths()[rows], 0.5, method="inverted_cdf")
    assert summary["tail_mass"]["mean"] == pytest.approx(np.exp(targets.log_tail[rows].astype(float)).mean(), abs=1e-9)
    assert summary["tail_mass"]["p90"] == pytest.approx(np.exp(np.quantile(targets.log_tail[rows], 0.9)), rel=0.15)
    hits = (targets.top1_ids == windows.next_token())[labels]
    assert summary["top1_agreement"] == pytest.approx(hits.mean())
    assert sum(summary["positions_by_kind"].values()) == windows.num_positions


def test_statistics_survive_json(windows, targets):
    statistics = Statistics.of(windows, targets)
    assert convert(json.loads(json.dumps(statistics.to_json())), Statistics) == statistics


def test_empty_statistics_have_no_means_or_quantiles():
    summary = Statistics().summary()
    assert summary["teacher_loss_nats"] is None
    assert summary["entropy_nats"]["p50"] is None
    assert summary["head_width"]["mean"] is None
