"""Seals: one flipped bit, a cut and an edit are found; files of the first version have none."""

import hashlib
import json

import pytest

from logitcask.schemas.checked_json import parse_object
from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.seals import check_seal, create_sealed, is_sealed, read_sealed, sealed

VALUE = {"thing_version": 2, "a": [1, {"seal": "x"}], "ö": None}


def read(path) -> dict:
    return read_sealed(str(path), dict, version_key="thing_version", what="a thing", advice="restore it")


def test_a_sealed_file_is_json_that_comes_back(tmp_path):
    assert create_sealed(str(tmp_path / "x.json"), VALUE)
    assert not create_sealed(str(tmp_path / "x.json"), VALUE)
    found = read(tmp_path / "x.json")
    assert {name: one for name, one in found.items() if name != "seal"} == VALUE
    assert json.loads((tmp_path / "x.json").read_text()) == found


@pytest.mark.parametrize("indent", [1, None])
def test_the_seal_is_the_digest_of_all_lines_after_the_second(indent):
    data = sealed(VALUE, indent=indent)
    first, second, rest = data.split(b"\n", 2)
    assert first == b"{"
    assert json.loads(b"{" + second.rstrip(b",") + b"}") == {"seal": f"sha256:{hashlib.sha256(rest).hexdigest()}"}


def test_every_flipped_bit_is_found(tmp_path):
    data, path = sealed(VALUE), tmp_path / "x.json"
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CorruptShardError, match=r"x\.json: not a thing: .*; restore it"):
            read(path)


def test_every_truncation_is_found(tmp_path):
    data, path = sealed(VALUE), tmp_path / "x.json"
    # Without its last line break, the file holds other bytes too.
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CorruptShardError):
            read(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace(b'"seal": "sha256:', b'"sael": "sha256:'),
        lambda text: json.dumps({name: one for name, one in json.loads(text).items() if name != "seal"}).encode(),
        lambda text: json.dumps(json.loads(text)).encode(),
        lambda text: json.dumps(json.loads(text) | {"thing_version": 1}).encode(),
    ],
)
def test_a_seal_that_was_removed_or_moved_is_found(edit):
    data = edit(sealed(VALUE))
    assert not is_sealed(data) or b"sael" in data
    with pytest.raises(CorruptShardError, match="no seal in its second line"):
        check_seal(data, parse_object(data), "thing_version")


@pytest.mark.parametrize("value", [{"thing_version": 1}, {"a": 2}])
def test_a_file_of_the_first_version_needs_no_seal(value):
    assert check_seal(json.dumps(value).encode(), value, "thing_version") is False
    assert check_seal(sealed(value), value, "thing_version") is True
