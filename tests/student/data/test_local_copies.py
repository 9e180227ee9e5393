"""Local copies of remote shards: by digest, within a bound."""

import hashlib
import os
import sys
import time
from pathlib import Path

import fsspec
import pytest

from logitcask.schemas import storage
from logitcask.schemas.errors import CorruptShardError, MissingShardError
from logitcask.student.data.dataset import OPEN_COPIES, SoftTargetDataset
from logitcask.student.data.local_copies import LocalCopies
from logitcask.student.data.lru_cache import LruCache


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


def test_the_least_recently_used_copy_is_removed_first(remote, tmp_path):
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


def test_the_newest_copy_is_kept_even_above_the_maximum(remote, tmp_path):
    path = LocalCopies(tmp_path, max_bytes=3).path(*remote("a", b"large"))
    assert Path(path).read_bytes() == b"large"


def test_a_removed_copy_stays_readable_while_it_is_open(remote, tmp_path):
    copies = LocalCopies(tmp_path, max_bytes=5)
    with open(copies.path(*remote("a", b"first")), "rb") as file:  # noqa: PTH123
        copies.path(*remote("b", b"other"))
        assert file.read() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


def test_partial_files_of_killed_downloads_are_removed_after_an_hour(remote, tmp_path):
    stale, young = (tmp_path / f"{storage.TEMPORARY_PREFIX}{name}" for name in ("stale", "young"))
    for path, age_seconds in ((stale, 2 * 3600), (young, 60)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age_seconds,) * 2)
    LocalCopies(tmp_path).path(*remote("a", b"shard"))
    assert not stale.exists()
    assert young.exists()


def test_downloads_in_progress_count(remote, tmp_path):
    copies, old = LocalCopies(tmp_path, max_bytes=10), remote("a", b"aaaa")
    first = Path(copies.path(*old))
    (tmp_path / f"{storage.TEMPORARY_PREFIX}other").write_bytes(b"four")
    copies.path(*remote("b", b"bbbb"))
    assert not first.exists()
    assert (tmp_path / f"{storage.TEMPORARY_PREFIX}other").exists()


def test_a_file_on_this_machine_is_not_copied(tmp_path):
    copies = LocalCopies(tmp_path / "copies")
    assert copies.path(str(tmp_path / "shard.parquet"), "sha256:0") == str(tmp_path / "shard.parquet")
    assert not (tmp_path / "copies").exists()


def test_a_file_with_another_digest_leaves_no_copy(remote, tmp_path):
    url, _ = remote("a", b"damaged")
    with pytest.raises(CorruptShardError, match="contents differ from those recorded"):
        LocalCopies(tmp_path).path(url, "sha256:" + "0" * 64)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingShardError, match="memory://nowhere"):
        LocalCopies(tmp_path).path("memory://nowhere/a.parquet", "sha256:0")


@pytest.fixture
def remote_dataset(remote):
    """`remote_dataset(directory)`: the URL of a copy of a dataset in a store that is not this machine's disk."""

    def put(directory: str) -> str:
        fsspec.filesystem("memory").put(directory, "/copies/dataset", recursive=True)
        return "memory://copies/dataset"

    fsspec.filesystem("memory").makedirs("/copies", exist_ok=True)
    return put


def test_a_dataset_reads_its_remote_shards_from_their_copies(dataset_url, remote_dataset, tmp_path):
    url = remote_dataset(dataset_url)
    first = SoftTargetDataset(url, copies=LocalCopies(tmp_path))[0]
    fsspec.filesystem("memory").rm("/copies/dataset/targets", recursive=True)
    again = SoftTargetDataset(url, copies=LocalCopies(tmp_path))[0]
    assert (first.windows.token == again.windows.token).all()


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_a_dataset_keeps_few_removed_copies_open(write_dataset, remote_dataset, tmp_path):
    url = remote_dataset(write_dataset(tmp_path / "dataset", {"train": [1] * 6}))
    dataset = SoftTargetDataset(url, copies=LocalCopies(tmp_path / "copies", max_bytes=1))
    for window in range(6):
        dataset[window]
    names = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    removed = [name for name in names if name.startswith(str(tmp_path)) and name.endswith("(deleted)")]
    assert len(removed) <= OPEN_COPIES


def test_a_block_in_memory_is_read_without_opening_its_shard_again(dataset_url, remote_dataset, tmp_path):
    url = remote_dataset(dataset_url)
    dataset = SoftTargetDataset(url, copies=LocalCopies(tmp_path, max_bytes=1))
    first = dataset[0].windows.token
    dataset._readers = LruCache(1, lambda shard: pytest.fail("opened again"))
    assert (dataset[0].windows.token == first).all()


def test_a_copy_that_is_gone_before_it_is_opened_is_fetched_again(dataset_url, remote_dataset, tmp_path):
    class RemovedAtOnce(LocalCopies):
        """Another process removes the first copy that is requested."""

        num_requests = 0

        def path(self, url: str, digest: str) -> str:
            path = super().path(url, digest)
            self.num_requests += 1
            if self.num_requests == 1:
                Path(path).unlink()
            return path

    copies = RemovedAtOnce(tmp_path)
    dataset = SoftTargetDataset(remote_dataset(dataset_url), copies=copies)
    assert dataset[0].windows.num_windows == 1
    assert copies.num_requests == 2
