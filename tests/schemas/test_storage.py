import multiprocessing
import os
import zipfile

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from logitcask.schemas import storage
from logitcask.schemas.errors import StorageError


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


def test_the_first_writer_wins(root):
    url = storage.join(root, "a", "b.bin")
    assert storage.create(url, b"first")
    assert not storage.create(url, b"second")
    assert storage.read_bytes(url) == b"first"


def test_part_of_a_file_can_be_read(root):
    storage.create(storage.join(root, "x"), b"0123456789")
    assert storage.read_bytes(storage.join(root, "x"), 2, 5) == b"234"


def test_a_listing_is_recursive_and_sorted_and_has_sizes(root):
    for name in ("b/2", "a/1", "c"):
        storage.create(storage.join(root, *name.split("/")), name.encode())
    files = storage.list_files(root)
    assert [(f.url[-3:], f.size_bytes) for f in files] == [("a/1", 3), ("b/2", 3), (files[2].url[-3:], 1)]
    assert files[2].url.endswith("/c")


def test_a_missing_directory_is_listed_as_empty(root):
    assert storage.list_files(storage.join(root, "missing")) == []


def test_a_pattern_is_a_file_or_a_directory_or_a_glob(root):
    for name in ("x.txt", "y.txt", "z.md"):
        storage.create(storage.join(root, "d", name), b"text")
    assert len(storage.expand(storage.join(root, "d"))) == 3
    assert [storage.file_name(f.url) for f in storage.expand(storage.join(root, "d", "*.txt"))] == ["x.txt", "y.txt"]
    assert [storage.file_name(f.url) for f in storage.expand(storage.join(root, "d", "z.md"))] == ["z.md"]
    assert storage.expand(storage.join(root, "d", "missing.md")) == []


def test_the_etag_changes_with_the_content(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"one")
    before = storage.describe_file(str(file))
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 12345))
    assert storage.describe_file(str(file)).etag != before.etag


@pytest.mark.parametrize("write", [storage.create, storage.replace])
@pytest.mark.parametrize(("umask", "permissions"), [(0o022, 0o644), (0o027, 0o640)])
def test_the_umask_decides_who_may_read_a_file(tmp_path, write, umask, permissions):
    before = os.umask(umask)
    try:
        write(str(tmp_path / "x"), b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == permissions


def test_replacing_leaves_one_whole_file(root):
    url = storage.join(root, "progress.json")
    storage.replace(url, b"1")
    storage.replace(url, b"22")
    assert storage.read_bytes(url) == b"22"
    assert len(storage.list_files(root)) == 1


def test_files_inside_an_archive_keep_the_archive_in_their_url(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("d/a.txt", "alpha")
    for pattern in ("d/*.txt", "d", "d/a.txt"):
        [file] = storage.expand(f"zip://{pattern}::{tmp_path}/x.zip")
        assert file.url == f"zip://d/a.txt::{tmp_path}/x.zip"
        assert storage.file_name(file.url) == "a.txt"
        assert storage.read_bytes(file.url) == b"alpha"


class BrokenFileSystem(MemoryFileSystem):
    """Fails as libraries do: with their own error classes and the whole URL in the message."""

    protocol = "broken"

    def cat_file(self, path, start=None, end=None, **options):
        raise RuntimeError("GET https://user:hush@host/x?sig=hush: 500")


@pytest.fixture
def broken(monkeypatch):
    monkeypatch.setattr(fsspec, "url_to_fs", lambda url, **_: (BrokenFileSystem(), "x"))


def test_an_error_of_a_store_is_a_storage_error_without_credentials(broken):
    with pytest.raises(StorageError, match=r"broken://host/x: .*RuntimeError: GET https://host/x") as caught:
        storage.read_bytes("broken://user:hush@host/x")
    assert "hush" not in str(caught.value)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        storage.create(str(tmp_path / "x"), b"data")
    assert list(tmp_path.iterdir()) == []


def test_without_hard_links_a_file_is_still_whole_and_created_once(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("links are not supported here")

    monkeypatch.setattr(os, "link", refuse)
    assert storage.create(str(tmp_path / "x"), b"first")
    assert not storage.create(str(tmp_path / "x"), b"second")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"first"]


def _race(args: tuple[str, int]) -> bool:
    return storage.create(args[0], str(args[1]).encode() * 1000)


def test_exactly_one_of_many_processes_creates_a_file(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        won = pool.map(_race, [(str(tmp_path / "x"), i) for i in range(24)], chunksize=1)
    assert sum(won) == 1
    assert (tmp_path / "x").read_bytes() == str(won.index(True)).encode() * 1000
    assert len(list(tmp_path.iterdir())) == 1
