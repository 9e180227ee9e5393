"""Processes, named so that no two are confused: not after a restart, not in containers, not on other machines.

A name is `HOST:MACHINE:PID:START`. MACHINE changes when the machine starts again, and differs between containers of one
machine, whose process numbers mean nothing to each other. START is in ticks since the machine started, because process
numbers are used again; no clock that jumps changes it.
"""

import os
import socket
from functools import cache
from hashlib import blake2b
from pathlib import Path


def this_process() -> str:
    """The name of this process."""
    return f"{socket.gethostname()}:{_machine()}:{os.getpid()}:{_start(os.getpid())}"


def runs(process: str) -> bool | None:
    """Whether a process runs; None for a process of another machine or container, which cannot be seen from here."""
    try:
        _, machine, number, start = process.split(":")
        pid = int(number)
    except ValueError:
        return None  # a name of an earlier release
    return _start(pid) == start if machine == _machine() else None


def describe_process(process: str) -> str:
    """A process in a message: `HOST:PID`."""
    parts = process.split(":")
    return f"{parts[0]}:{parts[-2]}" if len(parts) > 2 else process


@cache
def _machine() -> str:
    """The machine since its last start, and the container; the host's name where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        container = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - not a path
    except OSError:
        boot, container = socket.gethostname(), ""
    return blake2b(f"{boot} {container}".encode(), digest_size=6).hexdigest()


def _start(pid: int) -> str:
    """When a process started, in ticks since boot; "" if it does not run. "0" where the system does not say when."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - once for each lease of a listing
            state, *fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return "0" if not Path("/proc/self").exists() and _exists(pid) else ""
    # A zombie: Beam's worker pool never waits for its children, nor does a container without an init process.
    return "" if state in (b"Z", b"X") else fields[18].decode()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
