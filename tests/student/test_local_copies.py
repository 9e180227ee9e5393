"""Local copies of remote shards: by digest, within a bound."""

import hashlib
import os
from pathlib import Path

import fsspec
import pytest

from schemas.errors import CorruptShardError, MissingShardError
from student.dataset import SoftTargetDataset
from student.local_copies import LocalCopies


@pytest.fixture
def remote():
    """`remote(name, data)`: the URL and digest of a file in a store that is not this machine's disk."""
    fs = fsspec.filesystem("memory")

    def put(name: str, data: bytes) -> tuple[str, str]:
        fs.pipe_file(f"/copies/{name}", data)
        return f"memory://copies/{name}", f"sha256:{hashlib.sha256(data).hexdigest()}"

    yield put
    fs.rm("/copies", recursive=True)


def test_a_remote_file_is_copied_once(remote, tmp_path):
    copies, (url, digest) = LocalCopies(tmp_path / "copies"), remote("a", b"shard")
    path = copies.path(url, digest)
    assert Path(path).read_bytes() == b"shard"
    remote("a", b"changed meanwhile")
    assert copies.path(url, digest) == path


def test_what_was_used_longest_ago_goes_first(remote, tmp_path):
    copies = LocalCopies(tmp_path, max_bytes=10)
    files = [remote(name, name.encode() * 4) for name in "abc"]
    paths = [Path(copies.path(*file)) for file in files[:2]]
    for age, path in enumerate(paths):
        os.utime(path, (age, age))
    copies.path(*files[0])  # used again
    copies.path(*files[2])
    assert paths[0].exists()
    assert not paths[1].exists()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 10


def test_the_newest_copy_stays_even_if_it_is_too_large(remote, tmp_path):
    path = LocalCopies(tmp_path, max_bytes=3).path(*remote("a", b"large"))
    assert Path(path).read_bytes() == b"large"


def test_a_removed_copy_stays_readable_where_it_is_open(remote, tmp_path):
    copies = LocalCopies(tmp_path, max_bytes=5)
    with open(copies.path(*remote("a", b"first")), "rb") as file:  # noqa: PTH123
        copies.path(*remote("b", b"other"))
        assert file.read() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_on_this_machine_is_not_copied(tmp_path):
    copies = LocalCopies(tmp_path / "copies")
    assert copies.path(str(tmp_path / "shard.parquet"), "sha256:0") == str(tmp_path / "shard.parquet")
    assert not (tmp_path / "copies").exists()


def test_a_file_that_is_not_what_was_written_leaves_no_copy(remote, tmp_path):
    url, _ = remote("a", b"damaged")
    with pytest.raises(CorruptShardError, match="not the file that was written"):
        LocalCopies(tmp_path).path(url, "sha256:" + "0" * 64)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingShardError, match="memory://nowhere"):
        LocalCopies(tmp_path).path("memory://nowhere/a.parquet", "sha256:0")


def test_a_dataset_reads_its_remote_shards_from_their_copies(dataset_url, remote, tmp_path):
    fs = fsspec.filesystem("memory")
    fs.put(dataset_url, "/copies/dataset", recursive=True)
    dataset = SoftTargetDataset("memory://copies/dataset", copies=LocalCopies(tmp_path))
    first = dataset[0]
    fs.rm("/copies/dataset/targets", recursive=True)
    again = SoftTargetDataset("memory://copies/dataset", copies=LocalCopies(tmp_path))[0]
    assert (first.windows.token == again.windows.token).all()
