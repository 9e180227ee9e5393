"""A student gets the tokenizer of the shards where its ids mean the same."""

import json
import shutil
from pathlib import Path

import pytest
from train_command import train_words
from transformers import AutoTokenizer

from logitcask.schemas import cli
from logitcask.schemas.errors import FingerprintMismatchError
from logitcask.student.init import make_student
from logitcask.student.init.adopt_tokenizer import named_tokenizer, with_template_of_shards
from logitcask.student.model.student_card import StudentCard
from logitcask.teacher.text.tokenizers import load_tokenizer

TEMPLATE = "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"


def byte_tokenizer(directory: Path, pieces: int = 256, template: str | None = None) -> Path:
    """A tokenizer of bytes in the form of `transformers`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: number for number, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet())[:pieces])}
    vocabulary |= {"<s>": len(vocabulary), "</s>": len(vocabulary) + 1}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def teacher(tmp_path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    directory = byte_tokenizer(tmp_path / "teacher", template=TEMPLATE.replace(": ", "> "))
    LlamaForCausalLM(
        LlamaConfig(vocab_size=264, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    ).save_pretrained(directory)
    return directory


@pytest.fixture
def student(teacher, tmp_path) -> Path:
    make_student.prune_teacher(str(teacher), tmp_path / "student", layers=1)
    return tmp_path / "student"


@pytest.fixture
def dataset(tmp_path, write_dataset) -> str:
    """Shards that were made with the teacher's ids and another template."""
    info = load_tokenizer(byte_tokenizer(tmp_path / "other", template=TEMPLATE)).info
    return write_dataset(tmp_path / "data", {"train": [3]}, tokenizer=info, vocab_size=264)


def test_a_student_with_another_template_gets_the_one_of_the_shards(student, dataset, tmp_path, capsys):
    assert cli.main(train_words(dataset, student, tmp_path / "run")) == 0
    assert "its chat template is not the one with which the shards were made" in capsys.readouterr().err
    exported = tmp_path / "run" / "student"
    other = load_tokenizer(tmp_path / "other").info
    assert StudentCard.read(exported).tokenizer.fingerprint == other.fingerprint
    assert load_tokenizer(exported).info.fingerprint == other.fingerprint
    assert AutoTokenizer.from_pretrained(exported).chat_template == TEMPLATE
    assert cli.main(["eval", str(tmp_path / "run"), "--shards", dataset, "--split", "train"]) == 0


def test_the_tokenizer_of_the_shards_can_be_named(teacher, dataset, tmp_path):
    words = ["student", "init", "--teacher", str(teacher), "--layers", "1", "--out", str(tmp_path / "made")]
    assert cli.main([*words, "--tokenizer", str(tmp_path / "other")]) == 0
    assert StudentCard.read(tmp_path / "made").tokenizer == load_tokenizer(tmp_path / "other").info
    assert cli.main(train_words(dataset, tmp_path / "made", tmp_path / "run")) == 0


def test_train_takes_the_named_tokenizer(student, dataset, tmp_path):
    words = train_words(dataset, student, tmp_path / "run", "--tokenizer", str(tmp_path / "other"))
    assert cli.main(words) == 0
    assert load_tokenizer(tmp_path / "run" / "student").info.chat_template == TEMPLATE


def test_a_named_tokenizer_with_other_ids_is_refused(student, tmp_path):
    own = StudentCard.read(student).tokenizer
    with pytest.raises(FingerprintMismatchError, match="the ids of a student cannot change"):
        named_tokenizer(str(byte_tokenizer(tmp_path / "fewer", pieces=200)), own, tmp_path / "adopted")


def test_rules_that_differ_in_more_than_the_template_are_not_adopted(student, dataset, tmp_path):
    own, shards = StudentCard.read(student).tokenizer, load_tokenizer(tmp_path / "other").info
    path = student / "tokenizer.json"
    rules = json.loads(path.read_text())
    rules["pre_tokenizer"]["add_prefix_space"] = True
    path.write_text(json.dumps(rules))
    assert with_template_of_shards(student, own, shards, tmp_path / "adopted") is None
    shutil.rmtree(tmp_path / "adopted")
    assert with_template_of_shards(student, own, own, tmp_path / "adopted") is None
