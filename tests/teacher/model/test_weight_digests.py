"""Digests of weights: of tensors, however they are divided into files; each state of a file is read once."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from logitcask.schemas.errors import TeacherError
from logitcask.schemas.fingerprints import file_sha256
from logitcask.teacher.model import weight_digests as module
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.model.weight_digests import fingerprint_of_tensors, weight_digests


def settled(path: Path) -> Path:
    """A file that was not modified recently."""
    os.utime(path, (1e9, 1e9))
    return path


def test_the_same_weights_in_other_files_are_the_same_model(tiny_teacher: Path, teacher_copy: Path) -> None:
    weights = load_file(teacher_copy / "model.safetensors")
    (teacher_copy / "model.safetensors").unlink()
    names = sorted(weights)
    files = {f"model-0000{1 + odd}-of-00002.safetensors": names[odd::2] for odd in (0, 1)}
    for file, part in files.items():
        save_file({name: weights[name] for name in part}, teacher_copy / file)
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (teacher_copy / "model.safetensors.index.json").write_text(json.dumps(index))
    one, other = describe_teacher(tiny_teacher, "float32"), describe_teacher(teacher_copy, "float32")
    assert one.fingerprint != other.fingerprint
    assert one.is_same_model(other)
    assert one.num_parameters == other.num_parameters


@pytest.mark.parametrize(
    "changed",
    [
        {"a": torch.tensor([1.0, 2.0]), "c": torch.ones(2)},
        {"a": torch.tensor([1.0, 2.0]), "b": torch.ones(2, dtype=torch.float64)},
        {"a": torch.tensor([1.0, 2.0]), "b": torch.ones(1, 2)},
        {"a": torch.tensor([2.0, 1.0]), "b": torch.ones(2)},
    ],
)
def test_another_name_dtype_shape_or_byte_is_another_model(tmp_path: Path, changed: dict[str, torch.Tensor]) -> None:
    save_file({"a": torch.tensor([1.0, 2.0]), "b": torch.ones(2)}, tmp_path / "a.safetensors")
    save_file(changed, tmp_path / "b.safetensors")
    one, other = (fingerprint_of_tensors(weight_digests([tmp_path / f"{name}.safetensors"]), {}) for name in "ab")
    assert one != other


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", 7)
    save_file({"a": torch.arange(99), "b": torch.ones(0)}, tmp_path / "a.safetensors")
    (tmp_path / "b.gguf").write_bytes(b"GGUF" * 100)
    paths = [tmp_path / "a.safetensors", tmp_path / "b.gguf"]
    assert [one.sha256 for one in weight_digests(paths)] == [file_sha256(path) for path in paths]


def test_each_state_of_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(3)}, path)
    before = weight_digests([settled(path)])
    with monkeypatch.context() as patch:
        patch.setattr(module, "_compute", None)
        assert weight_digests([path]) == before
    save_file({"a": torch.zeros(3)}, path)
    assert weight_digests([path]) != before


def test_a_file_that_just_changed_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(3)}, path)
    before, status = weight_digests([path]), path.stat()
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert weight_digests([path]) != before


def test_a_file_that_ends_early_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(300), "b": torch.ones(300)}, path)
    path.write_bytes(path.read_bytes()[:-1300])
    with pytest.raises(TeacherError, match=r"a\.safetensors is not a readable safetensors file"):
        weight_digests([path])
