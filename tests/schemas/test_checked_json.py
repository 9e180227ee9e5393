"""JSON of strangers: each kind of bad text and bad value has a named error, and good values come back unchanged."""

import json
import time
from dataclasses import dataclass, field
from functools import partial

import pytest

from logitcask.schemas import checked_json
from logitcask.schemas.checked_json import (
    Count,
    Digest,
    FileName,
    InvalidValueError,
    Number,
    convert,
    is_file_name,
    parse_json,
    parse_object,
    read_object,
    require_version,
)
from logitcask.schemas.errors import CorruptShardError, ForeignOutputError, UnknownFormatVersionError


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    share: Number = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    name: FileName
    count: Count = 0
    digest: Digest = ""
    by_id: dict[Count, Inner] = field(default_factory=dict)


def parse(text: bytes) -> Outer:
    return convert(parse_object(text), Outer)


def test_values_become_types_and_unknown_keys_are_ignored():
    text = b'{"name": "a", "count": 3, "by_id": {"7": {"share": 1}}, "later": [null]}'
    assert parse(text) == Outer(name="a", count=3, by_id={7: Inner(share=1)})


def test_a_whole_number_keeps_its_form_where_a_float_may_stand():
    assert json.dumps(convert({"share": 30}, Inner).share) == "30"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not Unicode"),
        (b'{"a": "\\ud800"}', "not Unicode"),
        (b"[]", "not a JSON object"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' occurs twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1e999}', "1e999 is too large"),
        (b'{"a": ' + b"9" * 101 + b"}", "a number of 101 digits"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested more than 64 levels"),
        (b"[" * 1_000_000, "nested more than 64 levels"),
        (b"[" + b"[]," * 3_000_000, "values in JSON"),
    ],
)
def test_text_that_a_dataset_may_not_hold_is_refused(text, what):
    with pytest.raises(InvalidValueError, match=what):
        parse_object(text)


def test_a_text_beyond_the_maximum_is_refused_before_it_is_parsed():
    begin = time.perf_counter()
    with pytest.raises(InvalidValueError, match="bytes of JSON, the maximum"):
        parse_json(b" " * (checked_json.MAX_BYTES + 1))
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({}, "missing required field `name`"),
        ({"name": 7}, r"Expected `str`, got `int` - at `\$\.name`"),
        ({"name": None}, "Expected `str`, got `null`"),
        ({"name": "a", "count": -1}, r"Expected `int` >= 0 - at `\$\.count`"),
        ({"name": "a", "count": True}, "Expected `int`, got `bool`"),
        ({"name": "a", "count": 2**70}, "Expected `int` <= "),
        ({"name": "a", "digest": "x" * 101}, "Expected `str` of length <= 100"),
        ({"name": "a", "by_id": {"x": {}}}, "Expected `int`, got `str`"),
        ({"name": "a", "by_id": {"1": {"share": "half"}}}, r"Expected `int \| float`, got `str`"),
    ],
)
def test_a_value_of_another_type_or_range_is_named_by_its_key(value, what):
    with pytest.raises(InvalidValueError, match=what):
        convert(value, Outer)


@pytest.mark.parametrize("name", ["000001", "000000-a1~b2", "more.parquet", "Ünit 7"])
def test_a_file_name_is_one_component(name):
    assert convert({"name": name}, Outer).name == name
    assert is_file_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../a",
        "a/b",
        "/a",
        "~a",
        ".tmp-1",
        "a\\b",
        "a\0",
        "a\n",
        "a:b",
        "s3://b/a",
        "a::b",
        "a\u202eb",
        "%2e",
        "a?b",
        "a#b",
        "*",
        "-rf",
        " a",
        "a" * 300,
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(InvalidValueError, match="Expected a file name"):
        convert({"name": name}, Outer)


def test_the_message_names_the_file_the_key_and_what_to_do(tmp_path):
    (tmp_path / "x.json").write_text('{"name": "../x"}')
    with pytest.raises(ForeignOutputError, match=r"x\.json: not a card: Expected a file name .*`\$\.name`; restore it"):
        read_object(
            str(tmp_path / "x.json"),
            partial(convert, kind=Outer),
            what="a card",
            advice="restore it",
            error=ForeignOutputError,
        )


def test_a_version_is_a_whole_number_that_is_known():
    require_version({"v_version": 1}, "v_version", 1)
    with pytest.raises(UnknownFormatVersionError, match="v version 2; this release reads up to 1"):
        require_version({"v_version": 2}, "v_version", 1)
    for value in ({}, {"v_version": True}, {"v_version": "1"}, {"v_version": 1.0}):
        with pytest.raises(CorruptShardError):
            require_version(value, "v_version", 1)
