"""Fingerprints are stored in shards and names of units: their values must never change."""

import pytest

from logitcask.schemas.fingerprints import canonical_json, digest, fingerprint, vocabulary_fingerprint


def test_a_digest_is_sha256_with_its_name():
    assert digest(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_equal_values_have_one_json_text_whatever_the_order_of_keys():
    assert (
        canonical_json({"b": [1, None], "a": "é"})
        == canonical_json({"a": "é", "b": [1, None]})
        == '{"a":"é","b":[1,null]}'
    )


def test_a_value_that_json_cannot_express_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_a_fingerprint_keeps_its_value():
    assert fingerprint({"b": 1, "a": "é"}) == "bca252ac1b47464aee081f73d65d1904"


def test_a_vocabulary_fingerprint_is_that_of_ids_pieces_and_roles():
    special_ids = {"bos": 0, "eos": None}
    expected = "e5018da135a92a8f9fd0f00ed5cdfa0e"
    assert vocabulary_fingerprint({"a": 0, "b": 1}, special_ids) == expected
    assert vocabulary_fingerprint({"b": 1, "a": 0}, special_ids) == expected
    assert vocabulary_fingerprint({"a": 1, "b": 0}, special_ids) != expected
    assert vocabulary_fingerprint({"a": 0, "b": 1}, {"bos": 0, "eos": 1}) != expected
