"""The directory of a new student: weights, tokenizer and card."""

from pathlib import Path

import pytest
import torch
from model_logits import logits_of
from transformers import AutoModelForCausalLM

from logitcask.schemas.errors import ForeignOutputError
from logitcask.student.init import make_student
from logitcask.student.model.student_card import StudentCard
from logitcask.teacher.model.loading import load_model
from logitcask.teacher.text.tokenizers import load_tokenizer


def test_a_pruned_student_has_the_teachers_tokenizer_and_provenance(tiny_teacher, tmp_path):
    make_student.prune_teacher(str(tiny_teacher), tmp_path / "student", layers=2)
    identity = StudentCard.read(tmp_path / "student")
    assert identity.tokenizer == load_tokenizer(tiny_teacher).info
    assert identity.initialisation["kept_layers"] == [0, 3]
    assert identity.initialisation["of_layers"] == 4
    copied = load_tokenizer(tmp_path / "student")
    assert copied.encode("The student reads as its teacher.") == load_tokenizer(tiny_teacher).encode(
        "The student reads as its teacher."
    )


def test_a_checkpoint_becomes_a_student_unchanged(tiny_teacher, tmp_path):
    make_student.from_checkpoint(str(tiny_teacher), tmp_path / "student")
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    torch.testing.assert_close(logits_of(reloaded), logits_of(load_model(tiny_teacher, "float32", "cpu")))


def test_a_directory_with_other_files_is_refused_and_unchanged(tiny_teacher, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ForeignOutputError, match="not an empty directory"):
        make_student.prune_teacher(str(tiny_teacher), tmp_path, layers=2)
    assert [file.name for file in Path(tmp_path).iterdir()] == ["precious.txt"]
