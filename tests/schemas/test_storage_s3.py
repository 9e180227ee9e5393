"""S3 (moto and s3fs): conditional creation, and failures of the store: a few retries, then one clear error."""

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import SECRETS, Fault, environment, failing_proxy, s3_server

from logitcask.schemas import storage
from logitcask.schemas.errors import StorageError

pytestmark = pytest.mark.slow
pytest.importorskip("moto")
s3fs = pytest.importorskip("s3fs")

BUCKET = "s3://a-bucket"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes s3fs talk to an address."""

    def talk_to(address: str) -> None:
        for name, value in environment(address).items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()

    yield talk_to
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def root(endpoint: str, use: Callable[[str], None], request: pytest.FixtureRequest) -> str:
    use(endpoint)
    fs, _ = storage.filesystem(BUCKET)
    if not fs.exists(BUCKET):
        fs.mkdir(BUCKET)
    return storage.join(BUCKET, str(abs(hash(request.node.name))))


@pytest.fixture
def fail(endpoint: str, use: Callable[[str], None], root: str) -> Iterator[Callable[..., None]]:
    """Makes the first requests that contain `word` fail with `fault`."""
    plan: list[Any] = [None]
    with failing_proxy(endpoint, lambda request, before: plan[0](request, before)) as proxy:

        def start(word: str, fault: Fault, times: float = float("inf")) -> None:
            plan[0] = lambda request, before: fault if word in request and before < times else None
            use(proxy)

        yield start


def test_the_first_writer_wins_and_listings_are_fresh(root: str) -> None:
    url = storage.join(root, "a", "x")
    assert storage.list_files(root) == []
    assert storage.create(url, b"first")
    assert [file.size_bytes for file in storage.list_files(root)] == [5]
    assert not storage.create(url, b"second")
    assert storage.read_bytes(url) == b"first"
    assert storage.describe_file(url).etag == storage.expand(storage.join(root, "a", "*"))[0].etag != ""


def _race(work: tuple[str, int]) -> bool:
    return storage.create(work[0], str(work[1]).encode() * 1000)


def test_exactly_one_of_two_processes_creates_a_file(root: str) -> None:
    url = storage.join(root, "x")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        won = pool.map(_race, [(url, i) for i in range(16)], chunksize=1)
    assert sum(won) == 1
    assert storage.read_bytes(url) == str(won.index(True)).encode() * 1000


def test_a_multipart_upload_is_created_once(root: str) -> None:
    url, data = storage.join(root, "x"), bytes(101 << 20)
    assert storage.create(url, data)
    assert not storage.create(url, b"second")
    assert storage.describe_file(url).size_bytes == len(data)


@pytest.mark.parametrize("fault", ["503", "drop", "truncate"])
def test_a_request_that_fails_once_is_retried(root: str, fail: Callable[..., None], fault: Fault) -> None:
    storage.create(storage.join(root, "x"), b"0123456789" * 1000)
    fail("GET", fault, times=1)
    assert storage.read_bytes(storage.join(root, "x")) == b"0123456789" * 1000
    with storage.open_reader(storage.join(root, "x")) as stream:
        assert stream.read() == b"0123456789" * 1000


def test_a_put_whose_answer_is_lost_leaves_a_whole_file(root: str, fail: Callable[..., None]) -> None:
    fail("PUT", "503", times=1)
    assert storage.create(storage.join(root, "x"), b"data" * 1000)
    assert storage.read_bytes(storage.join(root, "x")) == b"data" * 1000


@pytest.mark.parametrize("fault", ["500", "503", "drop", "truncate"])
def test_a_store_that_keeps_failing_is_a_storage_error_without_secrets(
    root: str, fail: Callable[..., None], fault: Fault
) -> None:
    storage.create(storage.join(root, "x"), b"0123456789" * 1000)
    fail("GET", fault)
    with pytest.raises(
        StorageError, match=r"s3://a-bucket/\d+/x: the store failed or refused .*run the same"
    ) as caught:
        storage.read_bytes(storage.join(root, "x"))
    assert not any(secret in str(caught.value) for secret in SECRETS.values())
    stream = storage.open_reader(storage.join(root, "x"))
    with pytest.raises(StorageError, match="the store failed"):
        stream.read()


@pytest.mark.parametrize("fault", ["500", "503", "drop"])
def test_a_failing_put_leaves_nothing(root: str, fail: Callable[..., None], fault: Fault) -> None:
    fail("PUT", fault)
    with pytest.raises(StorageError, match="the store failed"):
        storage.create(storage.join(root, "x"), b"data" * 1000)
    assert storage.list_files(root) == []


def test_a_store_that_does_not_answer_times_out(
    root: str, fail: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 0.3)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    fail("GET", "hang")
    with pytest.raises(StorageError, match="Timeout"):
        storage.read_bytes(storage.join(root, "x"))


def test_a_missing_file_is_not_a_failure_of_the_store(root: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(root, "nothing"))
    assert not storage.exists(storage.join(root, "nothing"))
    assert storage.list_files("s3://no-such-bucket/x") == []


def test_wrong_credentials_are_named(
    endpoint: str, use: Callable[[str], None], tmp_path: Path, monkeypatch: Any
) -> None:
    use(endpoint)
    for name in SECRETS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageError, match="credentials"):
        storage.create("s3://a-bucket/x", b"data")
