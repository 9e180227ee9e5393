"""Sampled tails: unbiased, of exact mass, repeatable. Random numbers are those of the product, for fixed hashes.

Confidence: normal bounds of five standard deviations hold for one comparison with probability 1 - 6e-7.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_scheme import MadeUpScheme

from logitcask.schemas.errors import UnknownSchemeError
from logitcask.schemas.format.draws import uniforms, window_key
from logitcask.schemas.format.scheme import RandomSamplingScheme, Scheme, ThresholdSamplingScheme, ThresholdScheme
from logitcask.teacher.scoring import block_sums
from logitcask.teacher.scoring.heads import DeviceTargets, select_heads
from logitcask.teacher.scoring.tail_sampling import num_draws

VOCAB_SIZE = 507
RANDOM, THRESHOLD = RandomSamplingScheme(), ThresholdSamplingScheme()
BOTH = pytest.mark.parametrize("scheme", [RANDOM, THRESHOLD], ids=lambda scheme: scheme.kind)
SIGMAS = 5


def numbers(num_rows: int, scheme: Scheme, seed: int = 0) -> torch.Tensor:
    """The numbers of `window_uniforms` for one window whose hash is the seed."""
    keys = [window_key(f"{seed:032x}", scheme, replica) for replica in range(scheme.num_tail_samples)]
    drawn = [uniforms(key, np.arange(num_rows), scheme.num_uniforms) for key in keys]
    return torch.from_numpy(np.stack(drawn, axis=1))


def sample(
    logits: torch.Tensor, scheme: Scheme, uniforms_TRN: torch.Tensor | None = None, seed: int = 0
) -> DeviceTargets:
    drawn = numbers(len(logits), scheme, seed) if uniforms_TRN is None else uniforms_TRN
    return select_heads(logits.clone(), scheme, torch.zeros(len(logits), dtype=torch.long), uniforms_TRN=drawn)


def counts(heads: DeviceTargets, num_replicas: int, vocab_size: int) -> np.ndarray:
    """How often each id was drawn, [R, T, V]."""
    found = np.zeros((num_replicas, len(heads.widths), vocab_size))
    row = torch.repeat_interleave(heads.sample_widths).numpy()
    for replica in range(num_replicas):
        np.add.at(found[replica], (row, heads.sample_ids[:, replica].numpy()), 1)
    return found


def decode(heads: DeviceTargets, num_replicas: int, vocab_size: int) -> np.ndarray:
    """Each replica's target: the exact head, and an equal share of the tail for each draw, [R, T, V]."""
    share = heads.log_tail.double().exp().numpy() / heads.sample_widths.clamp(min=1).numpy()
    target = counts(heads, num_replicas, vocab_size) * share[:, None]
    row = torch.repeat_interleave(heads.widths).numpy()
    target[:, row, heads.ids.numpy()] += heads.log_probs.double().exp().numpy()
    return target


def random_logits(num_rows: int, vocab_size: int = VOCAB_SIZE, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(seed))


def zipf_logits(num_rows: int, vocab_size: int, seed: int) -> torch.Tensor:
    """Probabilities near rank^-a, a in [0.8, 2.5], in random order."""
    generator = torch.Generator().manual_seed(seed)
    exponents = 0.8 + 1.7 * torch.rand(num_rows, 1, generator=generator)
    logits = -exponents * torch.arange(1, vocab_size + 1).log()
    logits = logits + 0.3 * torch.randn(num_rows, vocab_size, generator=generator)
    return logits.gather(1, torch.rand(num_rows, vocab_size, generator=generator).argsort(1))


def probabilities(logits: torch.Tensor) -> np.ndarray:
    return logits.double().softmax(-1).numpy()


@BOTH
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_every_target_has_a_mass_of_one(scheme, seed):
    logits = zipf_logits(4, VOCAB_SIZE, seed)
    targets = decode(sample(logits, scheme, seed=seed), 1, VOCAB_SIZE)
    np.testing.assert_allclose(targets.sum(-1), 1, atol=2e-6)


def test_random_draws_have_the_teachers_probabilities():
    """χ² over all ids that are expected at least ten times; the rest together are one cell."""
    scheme = RandomSamplingScheme(draws=50, replicas=1000)
    logits = random_logits(4)
    found = counts(sample(logits, scheme), 1000, VOCAB_SIZE).sum(0)
    for row, expected in zip(found, 50 * 1000 * probabilities(logits), strict=True):
        often = expected >= 10
        seen = np.append(row[often], row[~often].sum())
        mean = np.append(expected[often], expected[~often].sum())
        assert ((seen - mean) ** 2 / mean).sum() < (len(mean) - 1) + SIGMAS * math.sqrt(2 * (len(mean) - 1))


@pytest.mark.parametrize("make_logits", [random_logits, lambda n: zipf_logits(n, VOCAB_SIZE, 5)])
@pytest.mark.parametrize(
    "scheme",
    [
        RandomSamplingScheme(draws=20, replicas=2000),
        ThresholdSamplingScheme(replicas=2000),
        ThresholdSamplingScheme(theta=0.3, replicas=2000),
    ],
)
def test_the_expected_target_is_the_teachers_distribution(scheme, make_logits):
    """Mean over 2,000 replicas, five standard errors, for each id drawn in at least 25 of them."""
    logits = make_logits(3)
    heads, exact = sample(logits, scheme), probabilities(logits)
    targets = decode(heads, scheme.replicas, VOCAB_SIZE)
    often = (counts(heads, scheme.replicas, VOCAB_SIZE) > 0).sum(0) >= 25
    standard_error = np.sqrt(_variance(exact, scheme, heads) / scheme.replicas)
    assert often.sum() > 30
    assert (np.abs(targets.mean(0) - exact) <= SIGMAS * standard_error + 1e-6)[often].all()


def _variance(exact: np.ndarray, scheme: Scheme, heads: DeviceTargets) -> np.ndarray:
    """Of one replica's target, [T, V]: binomial, or of one number rounded up or down at random."""
    if isinstance(scheme, RandomSamplingScheme):
        return exact * (1 - exact) / scheme.draws
    share = heads.log_tail.double().exp().numpy()[:, None] / heads.sample_widths.numpy()[:, None]
    part = (exact / share) % 1
    part[torch.repeat_interleave(heads.widths).numpy(), heads.ids.numpy()] = 0
    return share**2 * part * (1 - part)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), theta=st.sampled_from([0.5, 1 / 36, 1e-3]))
def test_systematic_draws_differ_from_their_expectation_by_less_than_one(seed, theta):
    scheme = ThresholdSamplingScheme(theta=theta, replicas=3)
    logits = zipf_logits(3, VOCAB_SIZE, seed)
    heads = sample(logits, scheme, seed=seed)
    outside = probabilities(logits)
    outside[torch.repeat_interleave(heads.widths).numpy(), heads.ids.numpy()] = 0
    expected = outside * (heads.sample_widths.numpy() / outside.sum(-1))[:, None]
    assert (np.abs(counts(heads, 3, VOCAB_SIZE) - expected) < 1 + 1e-5).all()


@pytest.mark.parametrize("theta", [1 / 12, 1 / 36, 1 / 100])
@pytest.mark.slow
def test_threshold_sampling_has_less_variance_than_as_many_random_draws(theta):
    """Entries are distinct stored ids. Zipf-like rows; the measured ratio of summed variances is 2 and more."""
    logits = zipf_logits(24, 2000, seed=9)
    threshold = ThresholdSamplingScheme(theta=theta, replicas=40)
    ours, num_entries = _squared_error(logits, threshold)
    draws = 8
    while True:
        theirs, num_theirs = _squared_error(logits, RandomSamplingScheme(draws=draws, replicas=40))
        if num_theirs >= num_entries:
            break
        draws = math.ceil(draws * 1.2)
    assert ours < theirs / 2


def _squared_error(logits: torch.Tensor, scheme: Scheme) -> tuple[float, float]:
    """Mean squared error of a row's target, and distinct entries of a row."""
    targets = decode(sample(logits, scheme), scheme.replicas, logits.shape[1])
    return ((targets - probabilities(logits)) ** 2).sum(-1).mean(), (targets > 0).sum(-1).mean()


@BOTH
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    num_possible=st.integers(1, VOCAB_SIZE),
    scale=st.sampled_from([0.1, 3.0, 20.0]),
    number=st.sampled_from([2**-33, 0.5, 1 - 2**-33]),
)
def test_only_possible_ids_outside_the_head_are_drawn_and_they_ascend(scheme, seed, num_possible, scale, number):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(4, VOCAB_SIZE, generator=generator)
    logits[:, torch.randperm(VOCAB_SIZE, generator=generator)[num_possible:]] = -math.inf
    uniforms_TRN = torch.full((4, 1, scheme.num_uniforms), number)
    heads = sample(logits, scheme, uniforms_TRN.double())
    drawn = counts(heads, 1, VOCAB_SIZE)[0] > 0
    held = np.zeros_like(drawn)
    held[torch.repeat_interleave(heads.widths).numpy(), heads.ids.numpy()] = True
    assert not (drawn & (held | logits.isneginf().numpy())).any()
    ids, row = heads.sample_ids[:, 0], torch.repeat_interleave(heads.sample_widths)
    assert (ids.diff()[row.diff() == 0] >= 0).all()


@pytest.mark.parametrize("number", [2**-33, 1 - 2**-33])
@pytest.mark.parametrize("peak", [0, VOCAB_SIZE - 1])
def test_the_outermost_points_draw_ids_of_the_vocabulary(number, peak):
    logits = torch.full((1, VOCAB_SIZE), -80.0)
    logits[0, peak] = 0.0
    scheme = RandomSamplingScheme(draws=4)
    heads = sample(logits, scheme, torch.full((1, 1, 4), number, dtype=torch.float64))
    assert heads.sample_ids.flatten().tolist() == [peak] * 4


@pytest.mark.parametrize("depth", [60.0, 150.0, 2000.0])
def test_a_tiny_tail_is_drawn_by_its_probabilities(depth):
    logits = torch.full((1, 100), -depth)
    logits[0, 7] = 0.0
    logits[0, 50:] -= math.log(3)
    heads = sample(logits, ThresholdSamplingScheme(replicas=2000))
    assert heads.ids.tolist() == [7]
    assert heads.sample_widths.tolist() == [1]
    drawn = counts(heads, 2000, 100)[:, 0]
    share = 49 / (49 + 50 / 3)
    assert drawn[:, 7].sum() == 0
    assert abs(drawn[:, :50].sum() / 2000 - share) < SIGMAS * math.sqrt(share * (1 - share) / 2000)


def test_nothing_is_drawn_where_the_head_holds_all_mass():
    logits = torch.full((2, 300), -math.inf)
    logits[:, 11], logits[1, 5:9] = 0.0, 1.0
    heads = sample(logits, THRESHOLD)
    assert heads.log_tail.tolist() == [-math.inf, -math.inf]
    assert heads.sample_widths.tolist() == [0, 0]
    assert heads.sample_ids.shape == (0, 1)


def test_where_no_id_reaches_theta_the_head_is_empty_and_draws_are_full():
    heads = sample(torch.zeros(2, 3000), THRESHOLD)
    assert heads.widths.tolist() == [0, 0]
    assert heads.log_tail.tolist() == [0, 0]
    assert heads.sample_widths.tolist() == [36, 36]


def test_random_sampling_stores_no_head_and_the_whole_mass_as_tail():
    heads = sample(random_logits(5), RANDOM)
    assert heads.widths.tolist() == [0] * 5
    assert heads.log_tail.tolist() == [0] * 5
    assert heads.sample_widths.tolist() == [50] * 5


def test_threshold_heads_are_all_ids_of_at_least_theta():
    logits = zipf_logits(20, 2000, seed=3)
    heads = sample(logits, ThresholdSamplingScheme(theta=0.01003))
    expected = (probabilities(logits) >= 0.01003).nonzero()
    np.testing.assert_array_equal(torch.repeat_interleave(heads.widths).numpy(), expected[0])
    np.testing.assert_array_equal(heads.ids.numpy(), expected[1])


@BOTH
def test_entropy_label_and_top_id_do_not_depend_on_the_scheme(scheme):
    logits = torch.cat([random_logits(5), torch.zeros(2, VOCAB_SIZE)])
    heads, plain = (
        sample(logits, scheme),
        select_heads(logits.clone(), ThresholdScheme(), torch.zeros(7, dtype=torch.long)),
    )
    assert heads.top1_ids.tolist() == plain.top1_ids.tolist()
    torch.testing.assert_close(heads.entropy, plain.entropy)
    torch.testing.assert_close(heads.log_next, plain.log_next)


@BOTH
def test_replicas_differ_and_more_of_them_do_not_change_the_first(scheme):
    logits = random_logits(6)
    one = sample(logits, scheme)
    three = sample(logits, Scheme.from_json(scheme.to_json() | {"replicas": 3}))
    np.testing.assert_array_equal(three.sample_ids[:, 0], one.sample_ids[:, 0])
    assert (three.sample_ids[:, 0] != three.sample_ids[:, 1]).any()
    assert (three.sample_ids[:, 1] != three.sample_ids[:, 2]).any()


@BOTH
def test_pieces_of_logits_draw_the_same(scheme, monkeypatch):
    logits = random_logits(9, 2000)
    whole = sample(logits, scheme)
    monkeypatch.setitem(block_sums._PIECE_LOGITS, "cpu", 4000)
    monkeypatch.setattr("logitcask.teacher.scoring.tail_sampling._PIECE_POINTS", 5)
    np.testing.assert_array_equal(sample(logits, scheme).sample_ids, whole.sample_ids)


@BOTH
def test_a_row_that_is_not_finite_is_flagged_and_changes_no_other(scheme):
    logits = random_logits(3)
    logits[1, 17] = math.nan
    heads = sample(logits, scheme)
    assert heads.is_finite.tolist() == [True, False, True]
    assert heads.sample_widths[1] == 0


def test_a_point_on_the_border_of_two_ids_draws_the_next_possible_one():
    logits = torch.full((1, 256), -math.inf)
    logits[0, :64] = logits[0, 192:] = 0.0
    scheme = RandomSamplingScheme(draws=2)
    heads = sample(logits, scheme, torch.tensor([[[0.5, 0.25]]], dtype=torch.float64))
    assert heads.sample_ids.flatten().tolist() == [32, 192]


def test_a_scheme_without_a_rule_for_its_draws_is_refused():
    with pytest.raises(UnknownSchemeError, match="no rule gives the number of draws of scheme MadeUpScheme"):
        num_draws(torch.zeros(2), MadeUpScheme(replicas=1))
