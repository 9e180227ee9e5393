"""Finishing a stage: in waves, retried while units finish, by what storage has and not by what the runner reports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from logitcask.pipeline.execution import stages
from logitcask.pipeline.execution.background_run import UnitFailedError
from logitcask.pipeline.execution.stages import Stage, StageResult, finish_stage
from logitcask.pipeline.runners.settings import RunnerSettings
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.pipeline.units.leases import UnitLimits
from logitcask.schemas.errors import CorruptShardError

SETTINGS = RunnerSettings()


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    name: str


class Cluster:
    """An exact fake of a runner and its storage: `work` does each unit of an attempt."""

    def __init__(self, work: Callable[["Cluster", Unit], None]) -> None:
        self.stored: set[str] = set()
        self.attempts: list[list[str]] = []
        self.spared_drivers: list[bool] = []
        self._work = work

    def run_stage(self, units: Sequence[Unit], _: Any, settings: RunnerSettings, **__: Any) -> None:
        self.spared_drivers.append(settings.spares_driver)
        self.attempts.append([unit.name for unit in units])
        for unit in units:
            self._work(self, unit)

    def stage(self, num_units: int) -> Stage:
        return Stage(
            label="test",
            measure="tokens",
            units=[Unit(name=f"u{index}") for index in range(num_units)],
            finished=lambda units: {unit.name for unit in units} & self.stored,
            size=lambda _: 10,
            transform=lambda heartbeats, _: self.remember(heartbeats),  # type: ignore[arg-type, return-value]
        )

    def remember(self, heartbeats: Heartbeats) -> None:
        self.heartbeats = heartbeats


@pytest.fixture
def finish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., StageResult]:
    """finish(cluster, num_units, attempts=3, wave_units=100)"""

    def start(cluster: Cluster, num_units: int, attempts: int = 3, wave_units: int = 100) -> StageResult:
        monkeypatch.setattr("logitcask.pipeline.runners.run_stage.run_stage", cluster.run_stage)
        limits = UnitLimits(out=str(tmp_path), attempts=2)
        stage = cluster.stage(num_units)
        return finish_stage(stage, SETTINGS, limits, attempts, wave_units=wave_units, quiet=True)

    return start


def test_unfinished_units_are_submitted_in_waves(finish: Any) -> None:
    cluster = Cluster(lambda cluster, unit: cluster.stored.add(unit.name))
    cluster.stored = {"u1", "u2"}
    assert finish(cluster, 7, wave_units=2) == StageResult(num_units=5, size=50, quarantined={})
    assert cluster.attempts == [["u0", "u3"], ["u4", "u5"], ["u6"]]
    assert finish(cluster, 7).num_units == 0
    assert len(cluster.attempts) == 3


def test_attempts_are_counted_only_while_no_unit_finishes(finish: Any) -> None:
    def one_per_attempt(cluster: Cluster, unit: Unit) -> None:
        if cluster.stored.isdisjoint(cluster.attempts[-1]) and unit.name != "u5":
            cluster.stored.add(unit.name)
            return
        raise ConnectionError("lost")

    cluster = Cluster(one_per_attempt)
    with pytest.raises(UnitFailedError, match=r"lost.*run the same command again"):
        finish(cluster, 6)
    assert cluster.stored == {f"u{index}" for index in range(5)}
    # Five attempts finished one unit each; the fifth and the two after it failed at u5.
    assert cluster.attempts[-3:] == [["u4", "u5"], ["u5"], ["u5"]]


def test_bad_data_is_not_retried(finish: Any) -> None:
    def corrupt(cluster: Cluster, unit: Unit) -> None:
        raise CorruptShardError("a.parquet: torn")

    cluster = Cluster(corrupt)
    with pytest.raises(CorruptShardError, match="torn"):
        finish(cluster, 2)
    assert len(cluster.attempts) == 1


def test_units_missing_in_storage_fail_a_run_that_reports_success(finish: Any) -> None:
    cluster = Cluster(lambda cluster, unit: cluster.stored.add(unit.name) if unit.name != "u1" else None)
    with pytest.raises(UnitFailedError, match="the runner reported success, but 1 of 3 units are not in storage"):
        finish(cluster, 3, attempts=2)


def test_a_unit_that_kills_workers_is_quarantined_and_the_rest_is_finished(finish: Any, leave_lease: Any) -> None:
    def deadly(cluster: Cluster, unit: Unit) -> None:
        if unit.name == "u1":
            leave_lease("u1", f"elsewhere:{len(cluster.attempts)}:1", len(cluster.attempts), "return code -9")
            raise ChildProcessError("return code -9")
        cluster.stored.add(unit.name)

    cluster = Cluster(deadly)
    result = finish(cluster, 4)
    assert cluster.attempts == [["u0", "u1", "u2", "u3"], ["u1", "u2", "u3"], ["u2", "u3"]]
    assert {unit: len(leases) for unit, leases in result.quarantined.items()} == {"u1": 2}
    assert finish(cluster, 4).quarantined.keys() == {"u1"}
    assert len(cluster.attempts) == 3


def test_if_every_unit_kills_its_worker_the_job_fails(finish: Any, leave_lease: Any) -> None:
    def deadly(cluster: Cluster, unit: Unit) -> None:
        leave_lease(unit.name, f"elsewhere:{len(cluster.attempts)}:1", len(cluster.attempts), "return code -9")
        raise ChildProcessError("return code -9")

    cluster = Cluster(deadly)
    with pytest.raises(UnitFailedError, match="return code -9"):
        finish(cluster, 9)
    assert len(cluster.attempts) == 3


def test_units_that_a_job_died_with_come_last_and_spare_the_driver(finish: Any, leave_lease: Any) -> None:
    leave_lease("u1", "here:0123456789ab:7:1", driver="here:0123456789ab:6:1")
    cluster = Cluster(lambda cluster, unit: cluster.stored.add(unit.name))
    assert finish(cluster, 4, wave_units=2).quarantined == {}
    assert cluster.attempts == [["u0", "u2"], ["u3"], ["u1"]]
    assert all(cluster.spared_drivers)
    cluster = Cluster(lambda cluster, unit: cluster.stored.add(unit.name))
    finish(cluster, 1)
    assert cluster.spared_drivers == [False]


def test_a_job_that_dies_any_number_of_times_quarantines_nothing(finish: Any, leave_lease: Any) -> None:
    for number in range(20):
        leave_lease("u0", f"here:0123456789ab:7:{number}", number, driver="here:0123456789ab:6:1")
    cluster = Cluster(lambda cluster, unit: cluster.stored.add(unit.name))
    assert finish(cluster, 1).quarantined == {}
    assert cluster.stored == {"u0"}


def test_progress_counts_each_unit_once_despite_retries(finish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    monkeypatch.setattr(stages.ProgressDisplay, "update", lambda self, done, _share=None: shown.append(done))

    def halting(cluster: Cluster, unit: Unit) -> None:
        cluster.heartbeats.advance(10)
        if len(cluster.attempts) == 1 and unit.name == "u1":
            raise ConnectionError("lost")
        cluster.stored.add(unit.name)

    finish(Cluster(halting), 3, wave_units=2)
    assert max(shown) == 30
