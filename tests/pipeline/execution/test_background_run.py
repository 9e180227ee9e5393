"""One attempt in the background: which error ends it, and how an interrupt stops it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from logitcask.pipeline.execution.background_run import BackgroundRun, UnitFailedError
from logitcask.pipeline.runners.settings import RunnerSettings
from logitcask.pipeline.units.heartbeats import Heartbeats, StopRequested
from logitcask.schemas.errors import CorruptShardError


@pytest.fixture
def heartbeats(tmp_path: Path) -> Heartbeats:
    return Heartbeats(directory=str(tmp_path))


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., BackgroundRun]:
    """start(error, death=None): a run whose runner raises an error, after a worker's death if there is a message."""

    def run(error: Exception, death: str | None = None) -> BackgroundRun:
        def run_stage(*_: Any, on_worker_death: Callable[[str], None]) -> None:
            if death is not None:
                on_worker_death(death)
            raise error

        monkeypatch.setattr("logitcask.pipeline.runners.run_stage.run_stage", run_stage)
        return BackgroundRun((), None, RunnerSettings())  # type: ignore[arg-type]

    return run


def test_a_workers_report_replaces_the_runners_error(start: Any, heartbeats: Heartbeats) -> None:
    heartbeats.report_failure("u", CorruptShardError("a.parquet: torn"))
    run = start(RuntimeError("many lines of a runner"))
    assert not run.wait(heartbeats, lambda: None)
    error = run.named_error(heartbeats)
    assert isinstance(error, CorruptShardError)
    assert str(error) == "a.parquet: torn"


def test_an_unknown_error_names_its_unit(start: Any, heartbeats: Heartbeats) -> None:
    heartbeats.report_failure("u", OSError(28, "No space left on device"))
    run = start(RuntimeError())
    run.wait(heartbeats, lambda: None)
    expected = r"unit u: OSError: \[Errno 28\] No space left on device.*run the same command again to resume"
    with pytest.raises(UnitFailedError, match=expected):
        raise run.named_error(heartbeats)


def test_the_death_of_a_worker_replaces_the_runners_error(start: Any, heartbeats: Heartbeats) -> None:
    run = start(RuntimeError("connection lost"), death="return code -9")
    run.wait(heartbeats, lambda: None)
    with pytest.raises(UnitFailedError, match=r"a worker died .*ChildProcessError: return code -9"):
        raise run.named_error(heartbeats)


def test_an_interrupt_lets_workers_finish_their_batch(
    heartbeats: Heartbeats, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    interrupts = [KeyboardInterrupt()]

    def interrupt_once() -> None:
        if interrupts:
            raise interrupts.pop()

    def run_until_stopped(*_: Any, **__: Any) -> None:
        while True:
            heartbeats.advance(1)

    monkeypatch.setattr("logitcask.pipeline.runners.run_stage.run_stage", run_until_stopped)
    run = BackgroundRun((), None, RunnerSettings())  # type: ignore[arg-type]
    assert run.wait(heartbeats, interrupt_once)
    assert isinstance(run.error, StopRequested)
    assert "stopping after the current batch" in caplog.text
