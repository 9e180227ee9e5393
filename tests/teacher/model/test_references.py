"""Where a teacher is found, and what is not a teacher."""

import huggingface_hub.constants
import pytest

from logitcask.schemas.errors import TeacherError
from logitcask.teacher.model.references import resolve


def test_a_name_is_the_last_component_of_the_path(teacher_copy, write_gguf, monkeypatch):
    monkeypatch.chdir(teacher_copy)
    assert resolve(".").name == "teacher"
    gguf = resolve(write_gguf())
    assert (gguf.kind, gguf.name) == ("gguf", "tiny")


@pytest.mark.parametrize("reference", ["/no/such/directory", "./missing", "model.gguf", "a b", ""])
def test_neither_a_local_path_nor_a_hub_id_is_refused_without_a_request(reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if reference == "":
        reference = str(tmp_path / "gone")
    with pytest.raises(TeacherError, match=r"does not exist.*give a directory"):
        resolve(reference)


def test_a_hub_id_that_cannot_be_fetched_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TeacherError, match=r"'no-such-owner/no-such-model'.*local directory"):
        resolve("no-such-owner/no-such-model")


def test_a_file_that_is_not_gguf_is_refused(teacher_copy):
    with pytest.raises(TeacherError, match=r"not a \.gguf"):
        resolve(teacher_copy / "model.safetensors")
