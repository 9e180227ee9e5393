import json
import re
from typing import get_args

import pytest

from logitcask.schemas.errors import CorruptShardError, UnknownFormatVersionError, UnknownSchemeError, UsageError
from logitcask.schemas.fingerprints import fingerprint
from logitcask.schemas.format.draws import window_key
from logitcask.schemas.format.scheme import (
    SCHEMES,
    RandomSamplingScheme,
    Scheme,
    SchemeKind,
    ThresholdSamplingScheme,
    ThresholdScheme,
    TopKScheme,
    TopPScheme,
    choose_scheme,
    extra_temperatures,
)

SAMPLING = [RandomSamplingScheme(draws=7, replicas=3), ThresholdSamplingScheme(theta=0.1)]
NOT_SAMPLING = [ThresholdScheme(k_min=2), TopKScheme(k=5), TopPScheme(p=0.5)]


def test_every_kind_is_registered_under_its_name():
    assert [scheme.kind for scheme in SCHEMES.values()] == list(SCHEMES) == list(get_args(SchemeKind))


@pytest.mark.parametrize("scheme", [*NOT_SAMPLING, *SAMPLING])
def test_a_scheme_comes_back_from_its_json(scheme):
    assert Scheme.from_json(json.loads(json.dumps(scheme.to_json()))) == scheme


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("threshold", {"kind": "threshold", "tau": 1e-3, "k": 128, "k_min": 1}),
        ("topk", {"kind": "topk", "k": 128}),
        ("topp", {"kind": "topp", "p": 0.95, "k": 128}),
        ("random-sampling", {"kind": "random-sampling", "draws": 3, "replicas": 9}),
        ("threshold-sampling", {"kind": "threshold-sampling", "theta": 0.5, "replicas": 9}),
    ],
)
def test_json_holds_what_the_kind_uses_and_no_more(kind, expected):
    scheme = choose_scheme(kind, {"replicas": 9, "draws": 3, "theta": 0.5})
    assert json.dumps(scheme.to_json()) == json.dumps(expected)


@pytest.mark.parametrize(
    ("scheme", "description", "label"),
    [
        (
            ThresholdScheme(),
            "adaptive: p ≥ 0.001, 1 to 128 entries, and the exact tail",
            "adaptive, p ≥ 0.001",
        ),
        (TopKScheme(k=50), "the 50 largest, and the exact tail", "50 largest + other"),
        (TopPScheme(k=64), "mass ≥ 0.95, at most 64 entries, and the exact tail", "mass ≥ 0.95"),
        (RandomSamplingScheme(replicas=2), "none: 50 random draws a position, 2 replicas", "50 random draws"),
        (
            ThresholdSamplingScheme(theta=0.02),
            "p ≥ 0.02, the exact tail, and one systematic draw for each 0.02 of the tail, at least one",
            "p ≥ 0.02 + draws",
        ),
    ],
)
def test_a_scheme_has_a_description_and_a_short_label(scheme, description, label):
    assert (scheme.describe(), scheme.label()) == (description, label)


def test_replicas_change_the_fingerprint_but_not_the_first_draws():
    one, three = RandomSamplingScheme(), RandomSamplingScheme(replicas=3)
    assert fingerprint(one.to_json()) != fingerprint(three.to_json())
    assert window_key("0" * 32, one, 0) == window_key("0" * 32, three, 0) != window_key("0" * 32, three, 1)


def test_only_sampling_kinds_have_samples():
    assert [scheme.num_tail_samples for scheme in NOT_SAMPLING] == [0, 0, 0]
    assert [scheme.num_tail_samples for scheme in SAMPLING] == [3, 1]


@pytest.mark.parametrize(
    "setting",
    [
        {"tau": 0.0},
        {"tau": 1.1},
        {"k": 0},
        {"k": 4, "k_min": 5},
        {"k_min": 0},
        {"p": 0.0},
        {"p": 1.1},
        {"draws": 0},
        {"draws": 10_001},
        {"theta": 0.0},
        {"theta": 9e-5},
        {"theta": 1.1},
        {"theta": float("nan")},
        {"replicas": 0},
    ],
)
@pytest.mark.parametrize("kind", SCHEMES)
def test_an_invalid_setting_is_refused_even_where_the_kind_ignores_it(kind, setting):
    with pytest.raises(UsageError):
        choose_scheme(kind, setting)


def test_a_chosen_kind_that_is_unknown_is_refused():
    with pytest.raises(UsageError, match="head scheme 'tail' is unknown; choose one of threshold, topk"):
        choose_scheme("tail", {})


@pytest.mark.parametrize("kind", ["tail", None, ""])
def test_a_stored_kind_that_is_unknown_is_refused(kind):
    assert issubclass(UnknownSchemeError, UnknownFormatVersionError)
    with pytest.raises(UnknownSchemeError, match=re.escape(f"head scheme {kind!r}; this release knows threshold")):
        Scheme.from_json({"kind": kind, "k": 4})


@pytest.mark.parametrize("changed", [{"k": 0}, {"k": "4"}, {"k": None}, {"tau": 0.1}])
def test_stored_parameters_that_are_invalid_are_refused(changed):
    with pytest.raises(CorruptShardError, match=r"head scheme .*'topk'.* is invalid"):
        Scheme.from_json({"kind": "topk", "k": 4} | changed)


def test_temperatures_are_sorted_and_omit_1_which_is_always_stored():
    assert extra_temperatures([4, 1, 2.0, 2], ThresholdScheme()) == (2.0, 4.0)
    assert extra_temperatures([1], SAMPLING[0]) == ()


@pytest.mark.parametrize("temperature", [0.0, -1.0, 1e-5, 1e7, 1.23456789, float("nan"), float("inf")])
def test_a_temperature_without_a_short_decimal_name_is_refused(temperature):
    with pytest.raises(UsageError, match="temperatures must be between"):
        extra_temperatures([temperature], ThresholdScheme())


@pytest.mark.parametrize("scheme", SAMPLING)
def test_an_extra_temperature_with_sampling_is_refused_with_the_reason(scheme):
    with pytest.raises(UsageError, match="ids are drawn by their probability at temperature 1"):
        extra_temperatures([2.0], scheme)
