"""Loading a student, alone or for a dataset."""

import pytest
import torch

from logitcask.schemas.errors import UsageError
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
