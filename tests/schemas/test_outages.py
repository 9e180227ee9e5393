"""Outages: what is waited for, for how long, and what is not; an outage is never read as damage."""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from logitcask.pipeline.finalization.segments import read_segment
from logitcask.schemas import outages, storage
from logitcask.schemas.dataset.layout import read_configuration
from logitcask.schemas.dataset.record import read_record
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.dataset.token_unit_record import read_token_unit_record
from logitcask.schemas.errors import StorageError, StoreAwayError
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.maintenance.compact import compact
from logitcask.schemas.maintenance.verify import verify

OUT = "memory://away"


class Clock:
    """Time passes in sleeps only."""

    def __init__(self) -> None:
        self.now_seconds = 0.0
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return self.now_seconds

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now_seconds += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outages, "time", clock)
    return clock


@pytest.fixture
def be_away(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Callable[..., None]:
    """be_away(until_seconds, error): every request fails before that time."""

    def start(until_seconds: float = 1e9, error: Exception | None = None) -> None:
        def failing(request: Callable[..., Any]) -> Callable[..., Any]:
            def ask(self: Any, *args: Any, **kwargs: Any) -> Any:
                if clock.now_seconds < until_seconds:
                    raise error or ConnectionError("refused")
                return request(self, *args, **kwargs)

            return ask

        for name in ("info", "find", "cat_file", "pipe_file", "rm_file", "glob", "_open", "ls", "exists"):
            monkeypatch.setattr(MemoryFileSystem, name, failing(getattr(MemoryFileSystem, name)))

    return start


@pytest.fixture(autouse=True)
def stored() -> Iterator[None]:
    storage.create(f"{OUT}/x", b"data")
    yield
    with suppress(FileNotFoundError):
        MemoryFileSystem().rm("/away", recursive=True)


REQUESTS: dict[str, tuple[Callable[[], Any], Any]] = {
    "read": (lambda: storage.read_bytes(f"{OUT}/x"), b"data"),
    "stream": (lambda: storage.open_reader(f"{OUT}/x").read(), b"data"),
    "exists": (lambda: storage.exists(f"{OUT}/x"), True),
    "missing": (lambda: storage.exists(f"{OUT}/nothing"), False),
    "describe": (lambda: storage.describe_file(f"{OUT}/x").size_bytes, 4),
    "list": (lambda: [file.url for file in storage.list_files(OUT)], ["memory:///away/x"]),
    "expand": (lambda: [file.url for file in storage.expand(f"{OUT}/*")], ["memory:///away/x"]),
    "create": (lambda: storage.create(f"{OUT}/y", b""), True),
    "create again": (lambda: storage.create(f"{OUT}/x", b""), False),
    "remove": (lambda: storage.remove(f"{OUT}/x"), None),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_every_request_outlasts_an_outage(name: str, clock: Clock, be_away: Callable[..., None]) -> None:
    request, expected = REQUESTS[name]
    be_away(600.0)
    with outages.store_timeout(1800.0):
        assert request() == expected
    # A ten-minute outage costs ten minutes, and at most one pause more.
    assert 600.0 <= clock.now_seconds <= 600.0 + outages._MAX_PAUSE_SECONDS


def test_pauses_grow_and_the_wait_ends_in_time(clock: Clock, be_away: Callable[..., None]) -> None:
    be_away()
    with outages.store_timeout(120.0), pytest.raises(StoreAwayError, match=r"refused.*\(waited 120 s\)"):
        storage.read_bytes(f"{OUT}/x")
    assert clock.now_seconds == pytest.approx(120.0)
    assert max(clock.sleeps) <= 1.0


def test_a_command_waits_a_few_seconds_only(clock: Clock, be_away: Callable[..., None]) -> None:
    be_away()
    with pytest.raises(StoreAwayError, match="waited 5 s"):
        storage.list_files(OUT)
    with outages.waiting(0), pytest.raises(StoreAwayError, match="waited 0 s"):
        storage.list_files(OUT)
    assert clock.now_seconds == pytest.approx(5.0)


def test_a_wait_can_be_ended(be_away: Callable[..., None]) -> None:
    def stop() -> None:
        raise InterruptedError

    be_away()
    with outages.waiting(1800.0, on_pause=stop), pytest.raises(InterruptedError):
        storage.exists(f"{OUT}/x")


def test_an_outage_is_announced_once_with_its_end(
    clock: Clock, be_away: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    be_away(100.0)
    with caplog.at_level(logging.WARNING), outages.store_timeout(1800.0):
        storage.read_bytes(f"{OUT}/x")
    first, last = (record.getMessage() for record in caplog.records)
    assert "memory://away/x" in first
    assert first.endswith("Waiting for it, up to 30 min")
    assert last.startswith("the store answers again, after 1")


class HTTPError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status_code = status


class ClientError(Exception):
    """Named and shaped as botocore's."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


def caused(cause: Exception) -> Exception:
    error = OSError("translated by the store's library")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionError(), True),
        (TimeoutError(), True),
        (HTTPError(503), True),
        (HTTPError(429), True),
        (caused(ClientError(500)), True),
        (HTTPError(401), False),
        (caused(ClientError(403)), False),
        (PermissionError(), False),
        (ImportError("s3fs"), False),
        (ValueError("no such protocol"), False),
        (type("NoCredentialsError", (Exception,), {})(), False),
    ],
)
def test_a_refusal_is_not_waited_for(
    error: Exception, passes: bool, clock: Clock, be_away: Callable[..., None]
) -> None:
    be_away(1.0, error)
    if passes:
        assert storage.read_bytes(f"{OUT}/x") == b"data"
    else:
        with pytest.raises(StorageError, match="refused") as caught:
            storage.read_bytes(f"{OUT}/x")
        assert not isinstance(caught.value, StoreAwayError)
        assert clock.sleeps == []


READERS: dict[str, Callable[[], Any]] = {
    "record": lambda: read_record(f"{OUT}/targets/train/a.json"),
    "configuration": lambda: read_configuration(OUT),
    "snapshot": lambda: load_snapshot(OUT),
    "token unit": lambda: read_token_unit_record(OUT, "a"),
    "segment": lambda: read_segment(OUT, "a"),
    "shard": lambda: ShardReader(f"{OUT}/targets/train/a.parquet"),
    "journal": lambda: compact(OUT),
    "verify": lambda: verify(OUT),
}


@pytest.mark.parametrize("name", READERS)
def test_a_store_that_is_away_is_not_read_as_damage(name: str, be_away: Callable[..., None]) -> None:
    be_away()
    with pytest.raises(StoreAwayError, match="kept") as caught:
        READERS[name]()
    assert "remove it" not in str(caught.value)
