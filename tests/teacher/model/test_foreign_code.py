"""Code and pickles that come with a model are never run, whatever its files request."""

import ast
import json
import pickle
from pathlib import Path

import pytest
import torch
from repository import ROOT

from logitcask.schemas.errors import LogitcaskError, TeacherError
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.model.loading import load_model
from logitcask.teacher.text.tokenizers import load_tokenizer


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self._flag = flag

    def __reduce__(self) -> tuple:
        return Path.touch, (self._flag,)


def test_code_that_comes_with_a_model_is_never_imported(teacher_copy: Path, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    (teacher_copy / "mine.py").write_text(f"import pathlib; pathlib.Path({str(flag)!r}).touch()\n")
    config = json.loads((teacher_copy / "config.json").read_text())
    classes = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model", "AutoTokenizer": ["mine.T", "mine.T"]}
    config |= {"auto_map": classes, "model_type": "mine", "trust_remote_code": True}
    (teacher_copy / "config.json").write_text(json.dumps(config))
    (teacher_copy / "tokenizer_config.json").write_text(json.dumps({"auto_map": classes, "trust_remote_code": True}))
    uses = (
        lambda: describe_teacher(teacher_copy, "float32"),
        lambda: load_model(teacher_copy, "float32", "cpu"),
        lambda: load_tokenizer(teacher_copy),
    )
    for use in uses:
        with pytest.raises(LogitcaskError):
            use()
    assert not flag.exists()


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickled_checkpoint_is_refused_unread(teacher_copy: Path, tmp_path: Path, save) -> None:
    flag = tmp_path / "ran"
    (teacher_copy / "model.safetensors").unlink()
    save({"weight": Payload(flag)}, teacher_copy / "pytorch_model.bin")
    for use in (lambda: describe_teacher(teacher_copy, "float32"), lambda: load_model(teacher_copy, "float32", "cpu")):
        with pytest.raises(TeacherError, match=r"pickled \.bin files can run code"):
            use()
    assert not flag.exists()


def test_no_call_trusts_remote_code_or_unpickles() -> None:
    """Checks every call in the four packages, which a type checker cannot do."""
    packages = [ROOT / name for name in ("pipeline", "teacher", "student", "schemas")]
    for file in (file for package in packages for file in package.rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            trusted = [word for word in call.keywords if word.arg == "trust_remote_code"]
            assert all(ast.unparse(word.value) == "False" for word in trusted), f"{file}:{call.lineno}"
            assert not name.startswith(("pickle.", "dill.", "cloudpickle.", "joblib.")), f"{file}:{call.lineno}"
            if name in ("torch.load", "np.load"):
                safe = {"torch.load": ("weights_only", "True"), "np.load": ("allow_pickle", "False")}[name]
                assert safe in [(word.arg, ast.unparse(word.value)) for word in call.keywords], f"{file}:{call.lineno}"
