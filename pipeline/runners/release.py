"""What a cluster's worker must be, checked by itself: it may join after the driver has checked the others.

It needs the driver's release, or shards of two releases would mix, and it must run one task at a time.
"""

import hashlib
import importlib.metadata
import sys
from functools import cache
from pathlib import Path

from logitcask.schemas.errors import ClusterError

_PACKAGES = ("pipeline", "teacher", "schemas")


@cache
def release() -> str:
    """The version and a digest of the code, because two checkouts can have the same version."""
    home = Path(__file__).resolve().parents[2]
    code = hashlib.sha256()
    for file in sorted(file for package in _PACKAGES for file in (home / package).rglob("*.py")):
        code.update(f"{file.relative_to(home).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return f"{importlib.metadata.version('logitcask')}+{code.hexdigest()[:12]}"


def require_one_task() -> None:
    """Raises ClusterError if this process is a Dask worker that runs several tasks at a time."""
    # Without importing it: elsewhere no Dask worker runs in this process.
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return
    try:
        worker = distributed.get_worker()
    except ValueError:
        return
    if worker.state.nthreads != 1:
        raise ClusterError(several_tasks(worker.address, worker.state.nthreads))


def several_tasks(worker: str, num_threads: int) -> str:
    """What is wrong with a Dask worker that runs several tasks at a time, and what to do."""
    return (
        f"Dask worker {worker} runs {num_threads} tasks at a time; start workers with --nthreads 1, several on a host "
        "if needed: each runs one unit at a time, with --threads CPU threads"
    )


def require_release(expected: str | None) -> None:
    """Raises ClusterError if this process has another release than `expected`; None accepts any."""
    if expected is not None and release() != expected:
        raise ClusterError(
            f"a worker has logitcask {release()}, the driver {expected}; install the same wheel everywhere "
            "(version and digest of the code must agree)"
        )
