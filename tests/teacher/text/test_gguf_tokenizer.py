"""Tokenizers inside GGUF files."""

import pytest

from logitcask.schemas.errors import TokenizerError
from logitcask.teacher.text.tokenizers import load_tokenizer


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
