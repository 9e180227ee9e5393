import pytest

from logitcask.schemas.errors import UsageError
from logitcask.schemas.fingerprints import fingerprint
from logitcask.schemas.format.draws import window_key
from logitcask.schemas.format.scheme import Scheme, further_temperatures

SAMPLING = [Scheme(kind="random-sampling", draws=7, replicas=3), Scheme(kind="threshold-sampling", theta=0.1)]


@pytest.mark.parametrize("scheme", [Scheme(), Scheme(kind="topk", k=5), Scheme(kind="topp", p=0.5), *SAMPLING])
def test_a_scheme_comes_back_from_its_json(scheme):
    assert Scheme.from_json(scheme.to_json()) == scheme


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (Scheme(replicas=9, draws=3), {"kind": "threshold", "tau": 1e-3, "k": 128, "k_min": 1}),
        (Scheme(kind="topk"), {"kind": "topk", "k": 128}),
        (Scheme(kind="topp"), {"kind": "topp", "p": 0.95, "k": 128}),
        (Scheme(kind="random-sampling", theta=0.5), {"kind": "random-sampling", "draws": 50, "replicas": 1}),
        (Scheme(kind="threshold-sampling", k=3), {"kind": "threshold-sampling", "theta": 1 / 36, "replicas": 1}),
    ],
)
def test_json_holds_what_the_kind_uses_and_no_more(scheme, expected):
    assert scheme.to_json() == expected


def test_replicas_change_the_fingerprint_but_not_the_draws_of_the_first():
    one, three = Scheme(kind="random-sampling"), Scheme(kind="random-sampling", replicas=3)
    assert fingerprint(one.to_json()) != fingerprint(three.to_json())
    assert window_key("0" * 32, one, 0) == window_key("0" * 32, three, 0) != window_key("0" * 32, three, 1)


@pytest.mark.parametrize("scheme", [Scheme(replicas=2), Scheme(kind="topk", replicas=2)])
def test_only_sampling_kinds_have_samples(scheme):
    assert scheme.num_tail_samples == 0
    assert [scheme.num_tail_samples for scheme in SAMPLING] == [3, 1]


@pytest.mark.parametrize(
    "setting",
    [
        {"draws": 0},
        {"draws": 10_001},
        {"theta": 0.0},
        {"theta": 9e-5},
        {"theta": 1.1},
        {"theta": float("nan")},
        {"replicas": 0},
        {"kind": "tail"},
    ],
)
def test_what_cannot_be_meant_is_refused(setting):
    with pytest.raises(UsageError):
        Scheme(**setting)


def test_temperatures_are_sorted_and_leave_out_one_which_is_always_stored():
    assert further_temperatures([4, 1, 2.0, 2], Scheme()) == (2.0, 4.0)
    assert further_temperatures([1], SAMPLING[0]) == ()


@pytest.mark.parametrize("temperature", [0.0, -1.0, 1e-5, 1e7, 1.23456789, float("nan"), float("inf")])
def test_a_temperature_whose_column_would_have_no_plain_name_is_refused(temperature):
    with pytest.raises(UsageError, match="temperatures lie between"):
        further_temperatures([temperature], Scheme())


@pytest.mark.parametrize("scheme", SAMPLING)
def test_another_temperature_of_a_sample_is_refused_with_the_reason(scheme):
    with pytest.raises(UsageError, match="ids are drawn by their probability at temperature 1"):
        further_temperatures([2.0], scheme)
