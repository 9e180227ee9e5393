"""GGUF teachers kept as safetensors: the same teacher, converted once, by the first process."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from logitcask.schemas.errors import TeacherError
from logitcask.teacher.model import loading
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.model.gguf_cache import cache_directory, converted
from logitcask.teacher.model.loading import load_model
from logitcask.teacher.model.references import resolve


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "logitcask" / "teachers"


def directories(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def test_the_cache_is_below_the_users_home_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "logitcask" / "teachers"


def test_a_second_load_reads_what_the_first_load_converted(cache, write_gguf, monkeypatch, caplog) -> None:
    path = write_gguf()
    first = load_model(path, device="cpu")
    assert f"converting teacher 'tiny' to safetensors, once: {cache}" in caplog.text
    monkeypatch.setattr(loading, "_convert_gguf", lambda *_: pytest.fail("converted again"))
    again = load_model(path, device="cpu")
    ids = torch.arange(20)[None]
    assert torch.equal(first(input_ids=ids).logits, again(input_ids=ids).logits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_conversion_changes_neither_weights_nor_fingerprint(cache, write_gguf, dtype) -> None:
    path = write_gguf()
    before = describe_teacher(path, dtype)
    direct = loading._from_pretrained(resolve(path), dtype, "auto", None).state_dict()
    through_cache = load_model(path, dtype, "cpu").state_dict()
    assert describe_teacher(path, dtype) == before
    assert direct.keys() == through_cache.keys()
    assert all(torch.equal(through_cache[name], weights) for name, weights in direct.items())


def test_another_file_of_the_same_name_is_another_teacher(cache, write_gguf) -> None:
    for rule in ("smollm", "gpt-2"):
        load_model(write_gguf(rule), device="cpu")
    assert len(directories(cache)) == 2


def test_a_conversion_that_fails_leaves_no_file(cache, write_gguf) -> None:
    def fail(directory: Path) -> None:
        (directory / "model.safetensors").write_bytes(b"half")
        raise TeacherError("no")

    with pytest.raises(TeacherError):
        converted(resolve(write_gguf()), "float32", fail)
    assert directories(cache) == []


def test_a_cache_that_cannot_be_written_is_only_a_warning(cache, write_gguf, caplog) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the directory should be")
    path = write_gguf()
    assert converted(resolve(path), "float32", lambda directory: None) == resolve(path)
    assert "is not kept as safetensors" in caplog.text
    assert load_model(path, device="cpu").dtype == torch.float32


def test_concurrent_processes_convert_once(cache, write_gguf) -> None:
    code = (
        "import sys, pathlib\n"
        "from logitcask.teacher.model.gguf_cache import converted\n"
        "from logitcask.teacher.model.references import resolve\n"
        "def convert(directory):\n"
        "    with open(sys.argv[2], 'a') as file: file.write('x')\n"
        "    (directory / 'done').touch()\n"
        "assert (converted(resolve(sys.argv[1]), 'float32', convert).path / 'done').exists()\n"
    )
    count = cache.parent.parent.parent / "count"
    command = [sys.executable, "-c", code, str(write_gguf()), str(count)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert count.read_text() == "x"
