"""Describing teachers from their files, and which files are refused."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from logitcask.schemas.errors import TeacherError, VocabularyError
from logitcask.teacher.model.description import check_vocabulary, describe_teacher
from logitcask.teacher.model.loading import load_model
from logitcask.teacher.text.tokenizers import load_tokenizer


def edit_config(directory: Path, **changes) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_teacher_is_described_without_being_built(tiny_teacher):
    info = describe_teacher(tiny_teacher, "bfloat16")
    model = load_model(tiny_teacher, device="cpu")
    assert info.architecture == type(model).__name__ == "Gemma2ForCausalLM"
    assert info.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (info.vocab_size, info.final_logit_softcap, info.dtype) == (1000, 30.0, "bfloat16")
    assert info.name == tiny_teacher.name


def test_the_fingerprint_ignores_the_directory_and_the_writing_library(tiny_teacher, teacher_copy):
    edit_config(teacher_copy, transformers_version="4.0.0")
    first, second = describe_teacher(tiny_teacher, "float32"), describe_teacher(teacher_copy, "float32")
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("change", ["weights", "configuration"])
def test_the_fingerprint_changes_with_weights_and_configuration(tiny_teacher, teacher_copy, change):
    if change == "weights":
        weights = load_file(teacher_copy / "model.safetensors")
        weights["model.norm.weight"][3] += 1e-3
        save_file(weights, teacher_copy / "model.safetensors", metadata={"format": "pt"})
    else:
        edit_config(teacher_copy, final_logit_softcapping=29.0)
    changed = describe_teacher(teacher_copy, "float32").fingerprint
    assert changed != describe_teacher(tiny_teacher, "float32").fingerprint


def test_the_license_is_read_from_the_model_card(teacher_copy):
    assert describe_teacher(teacher_copy, "float32").licence is None
    (teacher_copy / "README.md").write_text("---\ntags: []\nlicense: apache-2.0\n---\n# license: none\n")
    assert describe_teacher(teacher_copy, "float32").licence == "apache-2.0"


def test_a_configuration_that_is_not_json_is_refused(teacher_copy):
    (teacher_copy / "config.json").write_text("{")
    with pytest.raises(TeacherError, match="not JSON"):
        describe_teacher(teacher_copy, "float32")


def test_a_model_without_a_vocabulary_is_refused(teacher_copy):
    (teacher_copy / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(TeacherError, match=r"\(vit\) is not a language model"):
        describe_teacher(teacher_copy, "float32")


def test_an_unknown_architecture_is_refused(teacher_copy):
    edit_config(teacher_copy, model_type="unknown-type")
    with pytest.raises(TeacherError, match="cannot read the configuration"):
        describe_teacher(teacher_copy, "float32")


def test_a_weight_file_that_the_index_names_and_is_missing_is_named(teacher_copy):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (teacher_copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(TeacherError, match="lacks model-00001-of-00002"):
        describe_teacher(teacher_copy, "float32")


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tiny_teacher, teacher_copy):
    tokenizer = load_tokenizer(tiny_teacher).info
    check_vocabulary(tokenizer, describe_teacher(tiny_teacher, "float32"))
    edit_config(teacher_copy, vocab_size=900)
    with pytest.raises(VocabularyError, match=r"ids up to 999.*has only 900"):
        check_vocabulary(tokenizer, describe_teacher(teacher_copy, "float32"))


def test_a_gguf_teacher_is_described_from_its_header(write_gguf):
    info = describe_teacher(write_gguf(), "float32")
    assert (info.name, info.architecture, info.licence) == ("tiny", "LlamaForCausalLM", "mit")
    assert info.vocab_size == 259
    assert info.num_parameters == 259 * 32 + 3 * 64 * 32 + 4 * 32 * 32 + 3 * 32
