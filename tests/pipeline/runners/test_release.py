"""Workers need the driver's code, and run one task at a time."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from logitcask.pipeline.runners.release import release, require_one_task, require_release
from logitcask.schemas.errors import ClusterError


def test_the_same_release_is_accepted() -> None:
    require_release(release())
    require_release(None)


def test_another_release_is_refused_with_both_names() -> None:
    with pytest.raises(ClusterError) as caught:
        require_release("0.0.1+abc")
    assert f"a worker has logitcask {release()}, the driver 0.0.1+abc" in str(caught.value)


def dask_worker(num_threads: int) -> Any:
    state = SimpleNamespace(nthreads=num_threads)
    return SimpleNamespace(get_worker=lambda: SimpleNamespace(address="tcp://node7:4000", state=state))


def test_a_dask_worker_that_runs_several_tasks_refuses_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", dask_worker(4))
    with pytest.raises(ClusterError, match=r"Dask worker tcp://node7:4000 runs 4 tasks at a time; .*--nthreads 1"):
        require_one_task()
    monkeypatch.setitem(sys.modules, "distributed", dask_worker(1))
    require_one_task()


def test_a_process_that_is_no_dask_worker_may_take_units(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_worker() -> None:
        raise ValueError("no worker found")

    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(get_worker=get_worker))
    require_one_task()
    monkeypatch.delitem(sys.modules, "distributed")
    require_one_task()
