"""What a rule says, and that no rule is passed over."""

import pytest

from logitcask.schemas.dataset.rules import Rule
from logitcask.schemas.errors import UnknownFormatVersionError, UsageError


def test_a_rule_comes_back_from_json_as_it_was():
    rule = Rule(sources=("a*", "b"), forgotten=("x",), min_entropy=0.0, max_loss=3.5, kinds=("train",))
    assert Rule.from_json(rule.to_json()) == rule
    assert Rule.from_json(Rule().to_json()) == Rule()


def test_a_condition_of_a_later_release_is_refused():
    with pytest.raises(UnknownFormatVersionError, match="'min_beauty'"):
        Rule.from_json({"min_beauty": 1})


@pytest.mark.parametrize(
    ("pattern", "is_taken"),
    [
        ("/corpus/wiki/a.jsonl", True),
        ("/corpus/wiki/a.jsonl#3", True),
        ("*/wiki/*", True),
        ("*/wiki/*.jsonl", True),
        ("*#4", False),
        ("wiki", False),
        ("/corpus/WIKI/*", False),
    ],
)
def test_a_source_matches_as_a_whole_with_or_without_its_row(pattern, is_taken):
    assert Rule(sources=("none", pattern)).takes_source("/corpus/wiki/a.jsonl#3") is is_taken


@pytest.mark.parametrize(
    "conditions",
    [{"min_entropy": 2.0, "max_entropy": 1.0}, {"max_loss": -1.0}, {"min_loss": float("nan")}, {"kinds": ("prompt",)}],
)
def test_a_rule_that_is_invalid_is_refused(conditions):
    with pytest.raises(UsageError):
        Rule(**conditions)
