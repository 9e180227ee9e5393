"""Worker processes of this machine, from the driver's side: their command, their GPUs and their warnings.

A worker finds the directory of its stage in its environment. There it takes a *place*, a number that no other live
worker of the stage has, and writes its warnings; the driver logs each warning once, however many workers write it.
"""

import fcntl
import itertools
import json
import logging
import os
import shlex
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from logitcask.schemas.errors import UsageError

DIRECTORY_VARIABLE = "LOGITCASK_WORKERS"
DEVICES_VARIABLE = "LOGITCASK_DEVICES"
_RELAY_SECONDS = 0.5
_WARNING_SUFFIX = ".warning"

_held_places: list[int] = []


def check_devices(device: str, num_workers: int, visible: Sequence[str]) -> None:
    """Refuses more workers than GPUs, because each worker loads a teacher.

    Args:
        device: The resolved device: "cpu", "cuda" or "cuda:1".
        num_workers: Number of worker processes.
        visible: The GPUs that this process may use.

    Raises:
        UsageError: There are too few GPUs, or the device is a single GPU.
    """
    if num_workers == 1 or not device.startswith("cuda"):
        return
    if device != "cuda":
        raise UsageError(f"--workers {num_workers} --device {device}: all would share one GPU; use --device cuda")
    if num_workers > len(visible):
        raise UsageError(f"--workers {num_workers}: each needs its own GPU, and {len(visible)} are visible here")


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device for device in named.split(",") if device]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


@contextmanager
def worker_command() -> Iterator[str]:
    """A command that starts a worker of a stage, while the stage lasts; each of their warnings is logged once."""
    with tempfile.TemporaryDirectory(prefix="logitcask-workers-", ignore_cleanup_errors=True) as directory:
        stopped = threading.Event()
        relay = threading.Thread(target=_relay_warnings, args=(Path(directory), stopped), daemon=True)
        relay.start()
        environment = {DIRECTORY_VARIABLE: directory, DEVICES_VARIABLE: ",".join(visible_devices())}
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
        try:
            yield f"{settings} exec {shlex.quote(sys.executable)} -m logitcask.pipeline.runners.worker"
        finally:
            stopped.set()
            relay.join()


def take_place(directory: Path) -> int:
    """The lowest number that no live process has taken in `directory`; it is freed when this process ends."""
    for place in itertools.count():
        descriptor = os.open(directory / f"{place}.place", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        _held_places.append(descriptor)  # never closed: the lock is the place
        return place
    raise AssertionError("itertools.count never ends")


def device_of(place: int, devices: str) -> str | None:
    """The GPU of the worker at a place, from a comma-separated list of all GPUs; None if the list is empty."""
    names = [device for device in devices.split(",") if device]
    return names[place % len(names)] if names else None


class WarningFile(logging.Handler):
    """Writes each warning to the stage's directory, as a file whose name is a hash of the warning."""

    def __init__(self, directory: Path) -> None:
        super().__init__(logging.WARNING)
        self._directory = directory

    def emit(self, record: logging.LogRecord) -> None:
        note = json.dumps({"logger": record.name, "message": record.getMessage()})
        name = blake2b(note.encode(), digest_size=8).hexdigest()
        temporary = self._directory / f"{name}.{os.getpid()}.tmp"
        temporary.write_text(note)
        temporary.replace(self._directory / f"{name}{_WARNING_SUFFIX}")


def _relay_warnings(directory: Path, stopped: threading.Event) -> None:
    """Logs the workers' warnings until `stopped` is set, and then once more."""
    shown: set[str] = set()
    while True:
        last = stopped.wait(_RELAY_SECONDS)
        for file in sorted(directory.glob(f"*{_WARNING_SUFFIX}")):
            if file.name not in shown:
                shown.add(file.name)
                note = json.loads(file.read_text())
                logging.getLogger(note["logger"]).warning("%s", note["message"])
        if last:
            return
