"""Beam's threads: deaths of workers are reported, other errors are passed on."""

import threading
from collections.abc import Callable, Iterator

import pytest

from logitcask.pipeline.runners.quiet_beam import quiet_beam


@pytest.fixture
def passed_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The errors of threads that reach the hook installed before."""
    found: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: found.append(str(arguments.exc_value)))
    return found


def fail_in_thread(name: str) -> None:
    def fail() -> None:
        raise RuntimeError(f"in {name}")

    thread = threading.Thread(target=fail, name=name)
    thread.start()
    thread.join()


def test_the_death_of_a_worker_is_reported_during_the_stage_only(passed_on: list[str]) -> None:
    deaths: list[str] = []
    report: Callable[[str], None] = deaths.append
    with quiet_beam(report):
        fail_in_thread("run_worker")
        fail_in_thread("another")
    fail_in_thread("run_worker")
    assert deaths == ["in run_worker"]
    assert passed_on == ["in another"]
