import errno
import os
from pathlib import Path

import pytest

from logitcask.schemas.cli import main
from logitcask.schemas.system_errors import describe_system_error, naming


def raised(function, *arguments) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - returned for a closer look
        function(*arguments)
    return caught.value


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (OSError(errno.ENOSPC, "No space", "/a/b"), "/a/b: No space left on device; free space there"),
        (OSError("[Errno 28] Error writing bytes to '/a/b'. Detail: x"), "/a/b: No space left on device; free space"),
        (ValueError("I/O error: No space left on device (os error 28)"), "No space left on device (os error 28); free"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "No space left on device; free space"),
        (OSError(errno.EMFILE, "Too many", b"/a"), "/a: Too many open files; raise the limit of open files"),
        (OSError(errno.EROFS, "Read-only", "/a"), "/a: Read-only file system; use a place that can be written"),
    ],
)
def test_a_system_error_of_any_library_names_file_and_remedy(error, shown):
    described = describe_system_error(error)
    assert described is not None
    assert shown in described
    assert "\n" not in described


def test_a_system_error_below_another_error_is_found():
    outer = RuntimeError("unit 3 failed")
    outer.__cause__ = OSError(errno.ENOSPC, "No space", "/a")
    assert describe_system_error(outer) == describe_system_error(outer.__cause__)


def test_a_bug_is_no_system_error():
    assert describe_system_error(KeyError("x")) is None
    bug = KeyError("x")
    bug.__context__ = FileNotFoundError(errno.ENOENT, "No such file", "/optional")
    assert describe_system_error(bug) is None


def test_an_error_of_a_write_gets_the_name_of_its_file(tmp_path):
    full = Path("/dev/full")

    def write() -> None:
        with naming(tmp_path / "file"), full.open("wb", buffering=0) as file:
            file.write(b"x")

    assert f"{tmp_path}/file: No space left on device" in str(describe_system_error(raised(write)))


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "OUT"],
        ["inspect", "OUT"],
        ["clean", "OUT"],
        ["compact", "OUT"],
        ["forget", "OUT", "x"],
        ["select", "OUT", "--min-loss", "1"],
        ["report", "OUT"],
        ["merge", "OUT", "OUT/x", "--out", "new"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("place", ["a file", "below a file", "a loop of links", "a long name"])
def test_a_dataset_in_an_impossible_place_is_one_line(words, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    os.symlink("loop", "loop")  # noqa: PTH211
    out = {"a file": "file", "below a file": "file/x", "a loop of links": "loop", "a long name": "n" * 300}[place]
    assert main([word.replace("OUT", out) for word in words]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("logitcask: error: ")
    assert shown.count("\n") == 1
    assert out in shown


def test_a_full_stdout_is_one_line(small_dataset, monkeypatch, capsys):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["inspect", small_dataset.url]) == 1
    assert capsys.readouterr().err.startswith("logitcask: error: stdout: No space left on device; free space")
