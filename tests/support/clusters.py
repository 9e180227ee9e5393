"""Clusters for tests, made of real processes of this machine that end with the test."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

_PYTHON_DIRECTORY = str(Path(sys.executable).parent)
_WORKER_OPTIONS = ("--nthreads", "1", "--no-dashboard")


@contextmanager
def process(*words: str, **environment: str) -> Iterator["subprocess.Popen[Any]"]:
    """A Python process; at the end it is killed with all its children."""
    settings = {**os.environ, "PATH": f"{_PYTHON_DIRECTORY}:{os.environ['PATH']}", **environment}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen([sys.executable, *words], env=settings, start_new_session=True, **quiet)
    try:
        yield started
    finally:
        end_group(started)


def end_group(started: "subprocess.Popen[Any]") -> None:
    """Kills a process group by its leader."""
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait(timeout=30)


def group_members(group: int) -> list[str]:
    """The live processes of a group."""
    listed = subprocess.run(["ps", "-o", "pid=,stat=", "-g", str(group)], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if " Z" not in line]


def wait_for(condition: Callable[[], object], limit_seconds: float = 90.0) -> None:
    """Polls until the condition holds."""
    deadline = time.monotonic() + limit_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_seconds:g} s"
        time.sleep(0.05)


@contextmanager
def dask_scheduler(directory: Path) -> Iterator[list[str]]:
    """A Dask scheduler without workers; yields the options that make a worker join it."""
    file = directory / "scheduler.json"
    where = ["--scheduler-file", str(file)]
    # By default Dask gives up a task after three workers died near it, for any reason.
    patience = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "20"}
    with process("-m", "dask", "scheduler", *where, "--port", "0", "--no-dashboard", **patience):
        wait_for(lambda: file.exists() and file.read_text())
        yield where


def dask_address(where: Sequence[str]) -> str:
    """The address of the scheduler of these options."""
    return json.loads(Path(where[1]).read_text())["address"]


@contextmanager
def dask_workers(where: Sequence[str], directory: Path, *words: str, **environment: str) -> Iterator[None]:
    """Dask workers that run one task at a time; `words` are further options, such as their number."""
    scratch = ("--local-directory", str(directory))
    with process("-m", "dask", "worker", *where, *scratch, *_WORKER_OPTIONS, *words, **environment):
        yield


@contextmanager
def job_service(directory: Path, **pool_environment: str) -> Iterator[dict[str, str]]:
    """Beam's own job service and a pool that starts worker processes; yields the job's settings for them."""
    port_file = directory / "port"
    pool_port = _free_port()
    service = ("-m", "apache_beam.runners.portability.local_job_service_main", "--port_file", str(port_file))
    pool = ("-m", "apache_beam.runners.worker.worker_pool_main", "--service_port", str(pool_port))
    with ExitStack() as stack:
        stack.enter_context(process(*service))
        stack.enter_context(process(*pool, **pool_environment))
        wait_for(lambda: port_file.exists() and port_file.read_text().strip() and _is_listening(pool_port))
        yield {
            "runner": "portable",
            "job_endpoint": f"localhost:{port_file.read_text().strip()}",
            "environment_type": "EXTERNAL",
            "environment_config": f"localhost:{pool_port}",
        }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0
