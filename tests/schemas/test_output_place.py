import errno
import os
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from logitcask.schemas.errors import ForeignOutputError, StorageError
from logitcask.schemas.output_place import require_output_directory, require_output_file, require_outside


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    require_output_directory(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    require_output_directory(f"file://{tmp_path}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["file", "file/x", "file/x/y"])
def test_a_file_is_no_directory(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ForeignOutputError, match="file: is a file; give --out a directory"):
        require_output_directory(tmp_path / name)


def test_a_loop_of_links_and_a_long_name_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name, number in [("loop", errno.ELOOP), ("loop/x", errno.ELOOP), ("n" * 300, errno.ENAMETOOLONG)]:
        with pytest.raises(OSError, match=os.strerror(number)):
            require_output_directory(tmp_path / name)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_refuses_to_write_is_named(tmp_path, monkeypatch, number):
    def refuse(self: Path, data: bytes) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        require_output_directory(tmp_path / "out")
    assert raised.value.filename == str(tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "corpus", "is_inside"),
    [
        ("texts", "texts", True),
        ("texts/out", "texts", True),
        ("texts/../texts/out", "texts", True),
        ("link/out", "texts", True),
        ("texts-out", "texts", False),
        ("out", "texts", False),
        ("texts/a.txt.out", "texts/a.txt", False),
        ("s3://b/texts/out", "s3://b/texts/", True),
        ("s3://b/texts-out", "s3://b/texts", False),
    ],
)
def test_an_output_inside_the_corpus_is_refused(tmp_path, monkeypatch, out, corpus, is_inside):
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("x")
    Path("link").symlink_to("texts")
    if is_inside:
        with pytest.raises(ForeignOutputError, match="is inside the corpus"):
            require_outside(out, [corpus])
    else:
        require_outside(out, [corpus])


def test_a_store_is_tried_too(monkeypatch):
    require_output_directory("memory://place/out")
    assert not [name for name in MemoryFileSystem.store if "place" in name]

    def missing(self: MemoryFileSystem, path: str, value: bytes, mode: str = "create") -> None:
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", missing)
    with pytest.raises(ForeignOutputError, match="bucket or container does not exist"):
        require_output_directory("memory://place/out")

    def refused(self: MemoryFileSystem, path: str, value: bytes, mode: str = "create") -> None:
        raise PermissionError("AccessDenied")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refused)
    with pytest.raises(StorageError, match="AccessDenied"):
        require_output_directory("memory://place/out")


def test_a_report_is_not_written_over_a_directory(tmp_path):
    with pytest.raises(ForeignOutputError, match="--html"):
        require_output_file(str(tmp_path), option="--html")
    require_output_file(str(tmp_path / "r.html"), option="--html")
