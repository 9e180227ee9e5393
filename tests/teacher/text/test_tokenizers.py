"""Tokenizers: the same ids after saving, no control tokens from text, and chats."""

import json

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from transformers import (
    AutoTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from logitcask.schemas.errors import TeacherError, TokenizerError
from logitcask.teacher.text.tokenizers import HuggingFaceTokenizer, SentencePieceTokenizer, load_tokenizer

TEXT = "The assert statement: `assert  x == 1234`\n\n\tGrüße, 日本語 🙂\x00 "
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|turn|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


@pytest.fixture
def chat_directory(byte_level, tmp_path):
    """A directory with tokenizer.json, BOS, EOS and a chat template that writes BOS itself."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level, bos_token="<|bos|>", eos_token="<|end|>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(tmp_path / "chat")
    return tmp_path / "chat"


def test_sentencepiece_reads_a_model_file_or_a_directory_with_only_it(sentencepiece_model):
    by_directory = load_tokenizer(sentencepiece_model)
    by_file = load_tokenizer(sentencepiece_model / "tokenizer.model")
    assert isinstance(by_directory, SentencePieceTokenizer)
    assert by_directory.info.fingerprint == by_file.info.fingerprint
    assert (by_file.info.bos_id, by_file.info.eos_id, by_file.info.vocab_size) == (2, 1, 1000)


def test_sentencepiece_round_trips(sentencepiece_model):
    tokenizer = load_tokenizer(sentencepiece_model)
    ids = tokenizer.encode("The assert statement 日本")
    assert tokenizer.decode(ids) == "The assert statement 日本"
    assert tokenizer.piece(ids[0]) == "▁The"
    assert not {tokenizer.info.bos_id, tokenizer.info.eos_id} & set(ids)


def test_sentencepiece_keeps_its_fingerprints_when_saved(sentencepiece_model, tmp_path):
    tokenizer = load_tokenizer(sentencepiece_model)
    tokenizer.save(tmp_path / "student")
    again = load_tokenizer(tmp_path / "student").info
    assert again.fingerprint == tokenizer.info.fingerprint
    assert again.vocabulary_fingerprint == tokenizer.info.vocabulary_fingerprint


def test_sentencepiece_has_no_chat_template(sentencepiece_model):
    with pytest.raises(TokenizerError, match="without a chat template"):
        load_tokenizer(sentencepiece_model).apply_chat([{"role": "user", "content": "Hi"}])


def test_the_models_own_tokenizer_round_trips(chat_directory):
    tokenizer = load_tokenizer(chat_directory)
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert (tokenizer.info.bos_id, tokenizer.info.eos_id, tokenizer.info.vocab_size) == (0, 1, 600)


@pytest.mark.parametrize("text", ["a<|bos|>b", "<|end|>", "<s></s>"])
def test_text_never_becomes_a_control_token(chat_directory, sentencepiece_model, text):
    for directory in (chat_directory, sentencepiece_model):
        tokenizer = load_tokenizer(directory)
        ids = tokenizer.encode(text)
        assert not {tokenizer.info.bos_id, tokenizer.info.eos_id} & set(ids)
        assert tokenizer.decode(ids) == text


def test_half_a_surrogate_pair_is_refused(chat_directory, sentencepiece_model):
    for directory in (chat_directory, sentencepiece_model):
        with pytest.raises(TokenizerError, match="character 1"):
            load_tokenizer(directory).encode("a\ud83d")


def test_fingerprints_are_kept_with_a_student_of_another_architecture(chat_directory, tmp_path):
    tokenizer = load_tokenizer(chat_directory)
    student = tmp_path / "student"
    student.mkdir()
    (student / "config.json").write_text(json.dumps({"model_type": "gemma2"}))
    tokenizer.encode(TEXT)
    tokenizer.save(student)
    again = load_tokenizer(student)
    assert again.info.fingerprint == tokenizer.info.fingerprint
    assert again.info.vocabulary_fingerprint == tokenizer.info.vocabulary_fingerprint
    assert again.encode(TEXT) == tokenizer.encode(TEXT)


def _gpt2(byte_level: Tokenizer) -> PreTrainedTokenizerBase:
    state = json.loads(byte_level.to_str())["model"]
    vocab = {**state["vocab"], "<|endoftext|>": len(state["vocab"])}
    return GPT2Tokenizer(vocab=vocab, merges=[tuple(pair) for pair in state["merges"]])


def _llama_like(tokenizer_class: type, first: list[str]) -> PreTrainedTokenizerBase:
    pieces = [*first, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab", "▁ab"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return tokenizer_class(vocab=vocab, merges=[("▁", "a"), ("a", "b"), ("▁a", "b")], add_bos_token=True)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma"])
def test_the_tokenizer_class_of_an_architecture_keeps_its_fingerprints(architecture, byte_level, tmp_path):
    made = {
        "gpt2": lambda: _gpt2(byte_level),
        "llama": lambda: _llama_like(LlamaTokenizer, ["<unk>", "<s>", "</s>"]),
        "gemma": lambda: _llama_like(GemmaTokenizer, ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]),
    }[architecture]()
    made.save_pretrained(tmp_path / "a")
    first = load_tokenizer(tmp_path / "a")
    first.save(tmp_path / "b")
    second = load_tokenizer(tmp_path / "b")
    assert second.info.fingerprint == first.info.fingerprint
    assert second.info.vocabulary_fingerprint == first.info.vocabulary_fingerprint
    assert second.info.eos_id == first.info.eos_id == made.eos_token_id
    assert second.encode("ab ba") == first.encode("ab ba")
    assert AutoTokenizer.from_pretrained(tmp_path / "b")("ab")["input_ids"] == made("ab")["input_ids"]


def test_padding_and_truncation_change_neither_ids_nor_fingerprint(byte_level, chat_directory, tmp_path):
    settings = Tokenizer.from_str(byte_level.to_str())
    settings.enable_truncation(5)
    settings.enable_padding(length=7, pad_id=1, pad_token="<|end|>")
    PreTrainedTokenizerFast(
        tokenizer_object=settings, bos_token="<|bos|>", eos_token="<|end|>", chat_template=TEMPLATE
    ).save_pretrained(tmp_path / "set")
    first, second = load_tokenizer(chat_directory), load_tokenizer(tmp_path / "set")
    assert first.encode(TEXT) == second.encode(TEXT)
    assert first.info.fingerprint == second.info.fingerprint


@pytest.mark.parametrize("change", ["an added token", "a chat template", "a rule"])
def test_a_change_of_ids_changes_the_fingerprint(byte_level, chat_directory, tmp_path, change):
    backend = Tokenizer.from_str(byte_level.to_str())
    template = TEMPLATE
    if change == "an added token":
        backend.add_tokens([AddedToken("assert")])
    elif change == "a rule":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    else:
        template = TEMPLATE.replace("\n", " ")
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|bos|>", eos_token="<|end|>", chat_template=template
    ).save_pretrained(tmp_path / "other")
    other, plain = load_tokenizer(tmp_path / "other").info, load_tokenizer(chat_directory).info
    assert other.fingerprint != plain.fingerprint
    same_vocabulary = other.vocabulary_fingerprint == plain.vocabulary_fingerprint
    assert same_vocabulary == (change != "an added token")


def test_chats_mark_the_assistants_tokens_and_have_no_second_bos(chat_directory):
    tokenizer = load_tokenizer(chat_directory)
    ids, is_assistant = tokenizer.apply_chat(
        [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "\nThe assert"},
            {"role": "user", "content": "<3"},
            {"role": "assistant", "content": "x"},
        ]
    )
    assert tokenizer.info.bos_id not in ids
    assert tokenizer.decode(list(np.array(ids)[is_assistant])) == "\nThe assert<|end|>x<|end|>"
    assert tokenizer.decode(ids).startswith("<|turn|>user\nHi<|end|>\n<|turn|>assistant\n")


def test_a_chat_without_a_chat_template_is_refused(byte_level, tmp_path):
    PreTrainedTokenizerFast(tokenizer_object=byte_level).save_pretrained(tmp_path)
    with pytest.raises(TokenizerError, match="no chat template"):
        load_tokenizer(tmp_path).apply_chat([{"role": "user", "content": "Hi"}])


def test_undefined_bos_and_eos_are_none(byte_level, tmp_path):
    PreTrainedTokenizerFast(tokenizer_object=byte_level).save_pretrained(tmp_path)
    info = load_tokenizer(tmp_path).info
    assert (info.bos_id, info.eos_id) == (None, None)


def test_a_directory_without_tokenizer_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"neither tokenizer\.json nor"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match="no usable tokenizer"):
        load_tokenizer(tmp_path)


def test_a_file_that_is_not_a_sentencepiece_model_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"nothing")
    with pytest.raises(TokenizerError, match="not a SentencePiece model"):
        load_tokenizer(tmp_path)


def test_a_missing_reference_is_a_teacher_error(tmp_path):
    with pytest.raises(TeacherError, match="does not exist"):
        load_tokenizer(tmp_path / "nowhere" / "at" / "all")
