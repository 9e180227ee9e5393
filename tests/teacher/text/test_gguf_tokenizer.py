"""Tokenizers inside GGUF files."""

import json

import pytest
from gguf_tokenizers import TEXTS, TOKENIZERS, write_tokenizer
from repository import ROOT

from logitcask.schemas.errors import TokenizerError
from logitcask.teacher.text.gguf_tokenizer import RULES
from logitcask.teacher.text.tokenizers import load_tokenizer

BY_LLAMA_CPP = json.loads((ROOT / "tests" / "fixtures" / "llama_cpp" / "ids.json").read_text())["found"]


def test_all_rules_were_compared_with_llama_cpp():
    assert BY_LLAMA_CPP.keys() == RULES | TOKENIZERS.keys()


@pytest.mark.parametrize("name", BY_LLAMA_CPP)
def test_ids_and_the_beginning_are_those_of_llama_cpp(name, tmp_path):
    settings = TOKENIZERS.get(name, ("gpt2", {"tokenizer.ggml.pre": name, "tokenizer.ggml.bos_token_id": 1}))
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "tokenizer.gguf", *settings))
    assert dict(zip(TEXTS, map(tokenizer.encode, TEXTS), strict=True)) == dict(
        zip(TEXTS, BY_LLAMA_CPP[name]["ids"], strict=True)
    )
    assert (tokenizer.info.bos_id is not None) == BY_LLAMA_CPP[name]["adds_bos"]


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("llama", "remove_extra_whitespaces", True),
        ("gpt2", "new_trick", 1),
        ("t5", "pre", "default"),
        ("gpt2", "normalizer.lowercase", True),
    ],
)
def test_a_setting_that_is_not_supported_is_refused_by_name(kind, key, value, tmp_path):
    settings = {"tokenizer.ggml.pre": "gpt-2", f"tokenizer.ggml.{key}": value}
    with pytest.raises(TokenizerError, match="model = 't5'" if kind == "t5" else f"{key} = {value}"):
        load_tokenizer(write_tokenizer(tmp_path / "tokenizer.gguf", kind, settings))


def test_a_saved_tokenizer_still_adds_no_beginning(tmp_path):
    path = write_tokenizer(tmp_path / "tokenizer.gguf", *TOKENIZERS["gpt2, no beginning"])
    tokenizer = load_tokenizer(path)
    tokenizer.save(tmp_path / "student")
    again = load_tokenizer(tmp_path / "student")
    assert again.info.bos_id is None
    assert again.info.fingerprint == tokenizer.info.fingerprint


@pytest.mark.parametrize("rule", [None, "default"])
def test_a_file_without_a_rule_is_refused(rule, tmp_path):
    settings = {} if rule is None else {"tokenizer.ggml.pre": rule}
    with pytest.raises(TokenizerError, match="rule 'default'"):
        load_tokenizer(write_tokenizer(tmp_path / "tokenizer.gguf", "gpt2", settings))


def test_smollm_splits_digits_and_keeps_runs_of_spaces_before_them(write_gguf):
    tokenizer = load_tokenizer(write_gguf("smollm"))
    assert [tokenizer.piece(i) for i in tokenizer.encode("a  12  b")] == ["a", "ĠĠ", "1", "2", "Ġ", "Ġ", "b"]


def test_gpt2_splits_one_space_off_before_a_number(write_gguf):
    tokenizer = load_tokenizer(write_gguf("gpt-2"))
    assert [tokenizer.piece(i) for i in tokenizer.encode("a  12")] == ["a", "Ġ", "Ġ", "1", "2"]


def test_a_gguf_tokenizer_saved_with_a_student_keeps_its_fingerprints(write_gguf, tmp_path):
    tokenizer = load_tokenizer(write_gguf())
    tokenizer.save(tmp_path / "student")
    again = load_tokenizer(tmp_path / "student")
    assert again.info.fingerprint == tokenizer.info.fingerprint
    assert again.info.vocabulary_fingerprint == tokenizer.info.vocabulary_fingerprint
    assert (again.info.bos_id, again.info.eos_id) == (1, 0)
    assert again.encode("a  12") == tokenizer.encode("a  12")


def test_an_unknown_rule_is_refused(write_gguf):
    with pytest.raises(TokenizerError, match="rule 'viking'"):
        load_tokenizer(write_gguf("viking"))


def test_a_gguf_file_without_a_tokenizer_is_refused(write_gguf):
    with pytest.raises(TokenizerError, match="has no tokenizer"):
        load_tokenizer(write_gguf(tokenizer=False))
