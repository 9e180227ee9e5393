"""Heartbeats: counts of all processes, errors by name, and stop requests."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from logitcask.pipeline.units.heartbeats import Heartbeats, StopRequested
from logitcask.schemas.errors import CorpusError


def test_counts_of_all_processes_are_added(tmp_path: Path) -> None:
    heartbeats = Heartbeats(directory=str(tmp_path))
    heartbeats.advance(3)
    heartbeats.advance(4)
    heartbeats.flush()
    code = (
        f"from logitcask.pipeline.units.heartbeats import Heartbeats as H; h = H(directory={str(tmp_path)!r}); "
        "h.advance(10); h.flush()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert heartbeats.done() == 17


def test_the_share_of_time_in_the_teacher_is_that_of_all_processes(tmp_path: Path) -> None:
    heartbeats = Heartbeats(directory=str(tmp_path))
    heartbeats.flush()
    assert heartbeats.forward_share() is None
    heartbeats.spend(1.0)
    heartbeats.spend(5.0, forward_seconds=4.5)
    heartbeats.flush()
    code = (
        f"from logitcask.pipeline.units.heartbeats import Heartbeats as H; h = H(directory={str(tmp_path)!r}); "
        "h.spend(4.0, forward_seconds=3.5); h.flush()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert heartbeats.forward_share() == pytest.approx(0.8)


def test_a_named_error_keeps_its_class(tmp_path: Path) -> None:
    heartbeats = Heartbeats(directory=str(tmp_path))
    heartbeats.report_failure("u1", CorpusError("a.txt changed"))
    heartbeats.report_failure("u2", OSError(28, "No space left on device"))
    named, other = heartbeats.failures()
    assert isinstance(named.as_error(), CorpusError)
    assert str(named.as_error()) == "a.txt changed"
    assert other.as_error() is None
    assert (other.unit, other.error) == ("u2", "OSError")


def test_a_stop_reaches_workers_at_their_next_heartbeat(tmp_path: Path) -> None:
    heartbeats = Heartbeats(directory=str(tmp_path))
    heartbeats.advance(1)
    heartbeats.request_stop()
    with pytest.raises(StopRequested):
        heartbeats.advance(1)
    heartbeats.report_failure("u1", StopRequested())
    assert heartbeats.failures() == []


def test_without_a_listener_heartbeats_do_nothing(tmp_path: Path) -> None:
    for heartbeats in (Heartbeats(), Heartbeats(directory=str(tmp_path / "on another machine"))):
        heartbeats.advance(1)
        heartbeats.flush()
        heartbeats.report_failure("u1", ValueError())


def test_a_worker_whose_driver_ended_stops(tmp_path: Path) -> None:
    heartbeats = Heartbeats(directory=str(tmp_path / "attempt"))
    (tmp_path / "attempt").mkdir()
    heartbeats.advance(1)
    shutil.rmtree(tmp_path / "attempt")
    with pytest.raises(StopRequested):
        heartbeats.advance(1)
