"""Heads against a float64 definition written with a stable sort."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_scheme import MadeUpScheme

from logitcask.schemas.errors import UnknownSchemeError
from logitcask.schemas.format.scheme import Scheme, ThresholdScheme, TopKScheme, TopPScheme
from logitcask.teacher.scoring import block_sums
from logitcask.teacher.scoring.heads import DeviceTargets, select_heads

VOCAB_SIZE = 507


def reference(logits: np.ndarray, scheme: Scheme) -> dict:
    """One row, in float64: ids by falling logit (stable), then the scheme's definition."""
    z = logits.astype(np.float64)
    log_probs = z - z.max() - np.log(np.exp(z - z.max()).sum())
    order = np.argsort(-z, kind="stable")
    order = order[z[order] > -np.inf]
    probs = np.exp(log_probs[order])
    if isinstance(scheme, TopKScheme):
        count = scheme.k
    elif isinstance(scheme, TopPScheme):
        count = int(np.searchsorted(np.cumsum(probs), scheme.p)) + 1
    else:
        count = max(scheme.k_min, int((probs >= scheme.tau).sum()))
    head = np.sort(order[: min(count, scheme.k)])
    others = np.delete(log_probs, head)
    others = others[others > -np.inf]
    peak = others.max() if len(others) else 0.0
    with np.errstate(divide="ignore"):
        log_tail = peak + np.log(np.exp(others - peak).sum())
    finite = log_probs[log_probs > -np.inf]
    return {
        "ids": head,
        "log_probs": log_probs[head],
        "log_tail": log_tail,
        "entropy": -(np.exp(finite) * finite).sum(),
        "top1": order[0],
        "all": log_probs,
    }


def assert_equals_reference(logits: torch.Tensor, scheme: Scheme, tolerance: float = 1e-5) -> None:
    next_ids = torch.arange(len(logits)) % logits.shape[1] - 1
    heads = select_heads(logits.clone(), scheme, next_ids)
    stops = heads.widths.cumsum(0).tolist()
    for row, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
        expected = reference(logits[row].numpy(), scheme)
        np.testing.assert_array_equal(heads.ids[start:stop], expected["ids"])
        np.testing.assert_allclose(heads.log_probs[start:stop], expected["log_probs"], atol=tolerance)
        np.testing.assert_allclose(heads.log_tail[row], expected["log_tail"], atol=tolerance)
        np.testing.assert_allclose(heads.entropy[row], expected["entropy"], atol=tolerance)
        assert heads.top1_ids[row] == expected["top1"]
        if next_ids[row] < 0:
            assert heads.log_next[row].isnan()
        else:
            np.testing.assert_allclose(heads.log_next[row], expected["all"][next_ids[row]], atol=tolerance)


schemes = st.one_of(
    st.builds(
        ThresholdScheme,
        tau=st.sampled_from([0.9, 0.0101, 1.003e-3, 1e-9]),
        k=st.sampled_from([5, 128, VOCAB_SIZE]),
        k_min=st.integers(1, 5),
    ),
    st.builds(TopKScheme, k=st.sampled_from([1, 7, 128, VOCAB_SIZE - 1, VOCAB_SIZE])),
    st.builds(TopPScheme, p=st.sampled_from([1e-6, 0.503, 0.9503]), k=st.sampled_from([3, 128])),
)


@settings(deadline=None, max_examples=60)
@given(scheme=schemes, seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 2.0, 8.0]), ties=st.booleans())
def test_heads_equal_the_float64_definition_with_and_without_ties(scheme, seed, scale, ties):
    logits = scale * torch.randn(6, VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))
    # Rounding to halves makes many ids equal; the offset keeps probabilities off the thresholds.
    assert_equals_reference((logits * 2).round() / 2 if ties else logits, scheme)


@settings(deadline=None, max_examples=30)
@given(scheme=schemes, seed=st.integers(0, 2**31), num_possible=st.integers(1, VOCAB_SIZE))
def test_impossible_ids_never_enter_a_head(scheme, seed, num_possible):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, VOCAB_SIZE, generator=generator)
    logits[:, torch.randperm(VOCAB_SIZE, generator=generator)[num_possible:]] = -math.inf
    assert_equals_reference(logits, scheme)


@pytest.mark.parametrize("temperature", [0.25, 0.5, 2.0, 10.0])
@settings(deadline=None, max_examples=15)
@given(scheme=schemes, seed=st.integers(0, 2**31), num_possible=st.sampled_from([3, 200, VOCAB_SIZE]))
def test_tails_at_extra_temperatures_equal_the_float64_definition(temperature, scheme, seed, num_possible):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(5, VOCAB_SIZE, generator=generator)
    logits[:, torch.randperm(VOCAB_SIZE, generator=generator)[num_possible:]] = -math.inf
    heads = select_heads(logits.clone(), scheme, torch.zeros(5, dtype=torch.long), temperatures=(temperature, 1.0))
    log_probs = (logits.double() / temperature).log_softmax(-1)
    log_probs[torch.repeat_interleave(heads.widths), heads.ids] = -math.inf
    torch.testing.assert_close(heads.tempered_log_tails[:, 0].double(), log_probs.logsumexp(-1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(heads.tempered_log_tails[:, 1], heads.log_tail, rtol=1e-5, atol=1e-5)


def test_the_whole_vocabulary_as_head_leaves_no_tail():
    heads = select_heads(torch.randn(3, 50), TopKScheme(k=50), torch.zeros(3, dtype=torch.long))
    assert (heads.log_tail == -math.inf).all()
    assert (heads.widths == 50).all()


def test_a_tail_far_below_float32_subtraction_keeps_its_value():
    logits = torch.full((1, 1000), -60.0)
    logits[0, 7] = 0.0
    heads = select_heads(logits, TopKScheme(k=1), torch.tensor([7]))
    assert heads.log_tail[0].item() == pytest.approx(-60 + math.log(999), abs=1e-5)


def test_a_tail_below_the_smallest_float32_keeps_its_value():
    logits = torch.full((1, 1000), -150.0)
    logits[0, 7] = 0.0
    heads = select_heads(logits, TopKScheme(k=1), torch.tensor([7]))
    assert heads.log_tail[0].item() == pytest.approx(-150 + math.log(999), abs=1e-4)


def test_equal_logits_are_taken_by_lowest_id():
    heads = select_heads(torch.zeros(2, 3000), ThresholdScheme(k=4), torch.tensor([5, -1]))
    assert heads.ids.tolist() == [0, 0]
    heads = select_heads(torch.zeros(2, 3000), TopKScheme(k=4), torch.tensor([5, -1]))
    assert heads.ids.tolist() == [0, 1, 2, 3] * 2
    assert heads.top1_ids.tolist() == [0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_not_finite_is_flagged_alone(bad):
    logits = torch.randn(3, 300)
    logits[1, 17] = bad
    heads = select_heads(logits, ThresholdScheme(), torch.zeros(3, dtype=torch.long))
    assert heads.is_finite.tolist() == [True, False, True]


def test_a_row_of_only_impossible_ids_is_flagged():
    heads = select_heads(torch.full((1, 300), -math.inf), ThresholdScheme(), torch.zeros(1, dtype=torch.long))
    assert not heads.is_finite[0]


def test_pieces_of_blocks_change_nothing(monkeypatch):
    logits, next_ids = torch.randn(9, 2000) * 3, torch.arange(9)
    whole = select_heads(logits.clone(), ThresholdScheme(), next_ids)
    monkeypatch.setitem(block_sums._PIECE_LOGITS, "cpu", 4000)
    grouped = select_heads(logits.clone(), ThresholdScheme(), next_ids)
    for name in DeviceTargets.__slots__:
        torch.testing.assert_close(getattr(grouped, name), getattr(whole, name), rtol=0, atol=1e-6)


def test_a_scheme_without_a_rule_of_selection_is_refused():
    with pytest.raises(UnknownSchemeError, match="no rule selects the head of scheme MadeUpScheme"):
        select_heads(torch.zeros(2, 300), MadeUpScheme(), torch.zeros(2, dtype=torch.long))
