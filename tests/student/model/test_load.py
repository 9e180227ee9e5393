"""Loading a student, alone or for a dataset."""

import math
from pathlib import Path

import pytest
import safetensors.torch
import torch

from logitcask.schemas.errors import StudentError, UsageError
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.model.load import load_student, load_student_for


def test_a_student_loads_from_its_directory_and_from_its_run(student_directory, dataset_url, tmp_path):
    metadata = SoftTargetDataset(dataset_url).metadata
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "student").symlink_to(student_directory)
    one, other = (load_student_for(path, metadata) for path in (student_directory, tmp_path / "run"))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
        assert tensor.dtype == torch.float32


def test_a_directory_without_weights_is_refused(tmp_path):
    with pytest.raises(UsageError, match="transformers cannot load this student"):
        load_student(tmp_path)


def test_a_student_that_lacks_a_weight_is_refused(student_directory):
    change(student_directory, lambda tensors: tensors.pop("model.layers.0.mlp.down_proj.weight"))
    with pytest.raises(StudentError, match=r"lacks the weights model.layers.0.mlp.down_proj.weight"):
        load_student(student_directory)


def test_a_student_with_an_infinite_weight_is_refused(student_directory):
    change(student_directory, lambda tensors: tensors["model.norm.weight"][3:4].fill_(math.inf))
    with pytest.raises(StudentError, match=r"model.norm.weight \(1 in all\) hold NaN or infinity"):
        load_student(student_directory)


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_weights_that_are_cut_short_are_refused(student_directory, size):
    path = student_directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(StudentError, match="weights are damaged"):
        load_student(student_directory)


def test_weights_of_another_shape_are_refused(student_directory):
    def narrow(tensors):
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:8].clone()

    change(student_directory, narrow)
    with pytest.raises(StudentError, match=r"lacks the weights model\.norm\.weight, or has them in another shape"):
        load_student(student_directory)


def change(student: Path, edit) -> None:
    path = student / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    edit(tensors)
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
