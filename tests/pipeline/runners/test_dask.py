"""Unsuitable workers of a Dask cluster are named before the first unit."""

import dataclasses

from logitcask.pipeline.runners.dask import DaskWorker, worker_faults

GOOD = DaskWorker(address="tcp://a:1", release="1+x", num_threads=1, visible_devices="0")


def faults(*workers: DaskWorker, device: str = "cuda") -> list[str]:
    return list(worker_faults(workers, expected="1+x", device=device))


def test_workers_with_one_gpu_each_are_accepted() -> None:
    second = dataclasses.replace(GOOD, address="tcp://a:2", visible_devices="1,0")
    elsewhere = dataclasses.replace(GOOD, address="tcp://b:1")
    assert faults(GOOD, second, elsewhere) == []


def test_another_release_is_named() -> None:
    [fault] = faults(dataclasses.replace(GOOD, release="1+y"))
    assert "tcp://a:1 has logitcask '1+y', this host has '1+x'" in fault


def test_a_worker_without_logitcask_is_named_with_the_reason() -> None:
    [fault] = faults(dataclasses.replace(GOOD, release="", fault="No module named 'logitcask'"))
    assert "tcp://a:1 cannot import logitcask (No module named 'logitcask'); install the same wheel" in fault


def test_a_worker_that_would_run_two_units_at_a_time_is_named() -> None:
    [fault] = faults(dataclasses.replace(GOOD, num_threads=4))
    assert "--nthreads 1" in fault


def test_two_workers_of_a_host_on_one_gpu_are_named() -> None:
    unset = [dataclasses.replace(GOOD, address=f"tcp://a:{port}", visible_devices=None) for port in (1, 2)]
    [fault] = faults(*unset)
    assert "tcp://a:1 and tcp://a:2 of one host would use the same GPU" in fault
    assert faults(*unset, device="cpu") == []
