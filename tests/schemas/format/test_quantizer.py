import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from logitcask.schemas.format import quantizer
from logitcask.schemas.format.targets import StoredTargets

log_probs = hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-50, 0, width=32))


def test_the_table_is_the_formula_and_exact_in_float32():
    q = np.arange(256) / 64
    np.testing.assert_array_equal(quantizer.HEAD_LOG_PROBS.astype(np.float64), -q * (1 + q))


def test_every_table_value_is_its_own_code():
    q = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(quantizer.quantize_head(quantizer.dequantize_head(q)), q)


@given(log_probs)
def test_a_value_becomes_the_nearest_entry(values):
    error = np.abs(quantizer.dequantize_head(quantizer.quantize_head(values)).astype(np.float64) - values)
    best = np.abs(quantizer.HEAD_LOG_PROBS.astype(np.float64)[None] - values[:, None]).min(1)
    np.testing.assert_array_equal(error, best)


def test_a_midpoint_becomes_the_smaller_code():
    midpoints = (quantizer.HEAD_LOG_PROBS[1:].astype(np.float64) + quantizer.HEAD_LOG_PROBS[:-1]) / 2
    np.testing.assert_array_equal(quantizer.quantize_head(midpoints), np.arange(255))


@given(hnp.arrays(np.float32, 20, elements=st.floats(0, 31, width=32)))
def test_nats_round_to_the_nearest_step(values):
    decoded = quantizer.dequantize_nats(quantizer.quantize_nats(values))
    assert np.abs(decoded - values).max() <= 0.5 / quantizer.STEPS_PER_NAT


def test_nats_saturate():
    assert quantizer.quantize_nats(np.array([33.0, np.inf])).tolist() == [65535, 65535]


def test_only_an_empty_tail_decodes_to_zero_mass():
    steps = quantizer.quantize_tail(np.array([-np.inf, -1000.0, -0.0], np.float32))
    assert steps.tolist() == [quantizer.ZERO_TAIL, quantizer.ZERO_TAIL - 1, 0]
    decoded = quantizer.dequantize_tail(steps)
    assert np.isneginf(decoded[0])
    assert np.isfinite(decoded[1:]).all()


@pytest.mark.parametrize(("k", "exponent"), [(16, 1.0), (64, 1.1), (128, 0.9), (128, 2.0)])
def test_the_divergence_of_decoded_targets_is_below_1e_4_nats(k, exponent):
    rng = np.random.default_rng(k)
    logits = -exponent * np.log(np.arange(1, 20_001)) + 0.5 * rng.standard_normal((200, 20_000))
    log_p = -np.sort(-(logits - np.log(np.exp(logits).sum(1, keepdims=True))), axis=1)
    log_tail = np.log(np.exp(log_p[:, k:]).sum(1))
    offsets = np.arange(0, 200 * k + 1, k)
    head, tail = quantizer.decode_targets(
        quantizer.quantize_head(log_p[:, :k].ravel()),
        offsets,
        quantizer.dequantize_tail(quantizer.quantize_tail(log_tail.astype(np.float32))),
    )
    p, p_tail = np.exp(log_p[:, :k]), np.exp(log_tail)
    divergence = (p * (log_p[:, :k] - head.reshape(200, k))).sum(1) + p_tail * (log_tail - tail)
    assert divergence.mean() < 1e-4
    assert divergence.min() > -1e-6


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.integers(0, 2**31))
def test_a_renormalized_row_sums_to_one(widths, seed):
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, *widths])
    log_tail = np.where(rng.random(len(widths)) < 0.3, -np.inf, -5 * rng.random(len(widths))).astype(np.float32)
    log_tail[np.array(widths) == 0] = -1.0
    q = rng.integers(0, 256, offsets[-1], dtype=np.uint8)
    head, tail = quantizer.decode_targets(q, offsets, log_tail)
    for row in range(len(widths)):
        total = np.exp(head[offsets[row] : offsets[row + 1]].astype(np.float64)).sum() + np.exp(float(tail[row]))
        assert total == pytest.approx(1, abs=1e-6)


def test_a_row_without_a_target_decodes_to_no_target():
    no_head = np.zeros(0, np.uint8)
    head, tail = quantizer.decode_targets(no_head, np.zeros(2, np.int64), np.array([np.nan], np.float32))
    assert len(head) == 0
    assert np.isnan(tail).all()


def test_decoded_targets_sum_to_one():
    stored = StoredTargets(
        head_ids=np.arange(3, dtype=np.int32),
        head_q=np.array([0, 64, 255], np.uint8),
        head_offsets=np.array([0, 2, 2, 3]),
        log_tail=np.array([-1.0, np.nan, -np.inf], np.float32),
        log_next=np.full(3, -1, np.float32),
        entropy=None,
    )
    decoded = stored.decode()
    masses = np.add.reduceat(np.exp(decoded.head_log_probs.astype(np.float64)), [0, 2])
    np.testing.assert_allclose(masses + np.exp(decoded.log_tail[[0, 2]].astype(np.float64)), 1, rtol=1e-6)
    assert decoded.has_target().tolist() == [True, False, True]
