"""Checks a Dask cluster before the first unit: workers need the same code, one unit at a time, and a GPU each."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from logitcask.pipeline.runners.release import release, several_tasks
from logitcask.schemas.errors import ClusterError

# Workers of a cluster that was started together with the job may still be starting.
_FIRST_WORKER_SECONDS = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class DaskWorker:
    """One worker process of a cluster.

    Attributes:
        address: Its address at the scheduler.
        release: Its logitcask (`pipeline.runners.release`); empty if it did not report one.
        fault: Why it did not.
        num_threads: Number of tasks it runs at a time.
        visible_devices: Its CUDA_VISIBLE_DEVICES; None if not set.
    """

    address: str
    release: str
    num_threads: int
    visible_devices: str | None
    fault: str | None = None


def require_workers(address: str, device: str) -> None:
    """Checks all workers, and refuses a cluster on which the job would fail.

    Args:
        address: The scheduler's address, `tcp://host:port`.
        device: Where the teacher runs, "cpu" or "cuda".

    Raises:
        ClusterError: The scheduler does not answer, there is no worker, or a worker is unsuitable.
    """
    for fault in worker_faults(ask_workers(address), expected=release(), device=device):
        raise ClusterError(fault)


def ask_workers(address: str) -> list[DaskWorker]:
    """The workers of the scheduler at `address`, sorted by their addresses.

    Raises:
        ClusterError: The scheduler does not answer, or there is no worker.
    """
    from distributed import Client

    try:
        with Client(address, set_as_default=False, timeout=_FIRST_WORKER_SECONDS) as client:
            client.wait_for_workers(1, timeout=_FIRST_WORKER_SECONDS)
            threads = {name: facts["nthreads"] for name, facts in client.scheduler_info(-1)["workers"].items()}
            releases: Any = client.run(release, on_error="return")
            # Not `os.environ.get`, which is pickled with this host's environment.
            devices: Any = client.run(os.getenv, "CUDA_VISIBLE_DEVICES", on_error="return")
    except (OSError, TimeoutError) as error:
        raise ClusterError(
            f"--dask-scheduler {address}: no answer, or no worker ({type(error).__name__}: {error})"
        ) from error
    return [
        DaskWorker(
            address=name,
            release=answer if isinstance(answer := releases.get(name), str) else "",
            num_threads=num_threads,
            visible_devices=devices.get(name),
            fault=None if isinstance(answer, str) else _fault(answer),
        )
        for name, num_threads in sorted(threads.items())
    ]


def _fault(answer: Exception | None) -> str:
    """Why a worker did not report its release. Dask nests errors of unpickling, and truncates them."""
    if answer is None:
        return "no answer"
    missing = re.search(r"No module named '[\w.]+'", str(answer))
    return missing[0] if missing else f"{type(answer).__name__}: {answer}"


def worker_faults(workers: Sequence[DaskWorker], *, expected: str, device: str) -> Iterator[str]:
    """A message for each worker that is unsuitable."""
    for worker in workers:
        if worker.fault is not None:
            yield (
                f"Dask worker {worker.address} cannot import logitcask ({worker.fault}); install the same wheel on all "
                "workers"
            )
        elif worker.release != expected:
            yield (
                f"Dask worker {worker.address} has logitcask {worker.release!r}, this host has {expected!r}; install "
                "the same wheel on all workers"
            )
        if worker.num_threads != 1:
            yield several_tasks(worker.address, worker.num_threads)
    if device == "cuda":
        yield from _shared_devices(workers)


def _shared_devices(workers: Sequence[DaskWorker]) -> Iterator[str]:
    """A message for each worker that would put its teacher on the GPU of another worker of its host."""
    seen: dict[tuple[str | None, str | None], str] = {}
    for worker in workers:
        first = worker.visible_devices and worker.visible_devices.split(",")[0]
        other = seen.setdefault((urlsplit(worker.address).hostname, first), worker.address)
        if other != worker.address:
            yield (
                f"Dask workers {other} and {worker.address} of one host would use the same GPU; start each with a "
                "different CUDA_VISIBLE_DEVICES"
            )
