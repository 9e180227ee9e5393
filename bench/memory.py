"""Resident memory of this process, measured while something runs."""

import ctypes
import re
import sys
import threading
from pathlib import Path
from types import TracebackType

_PAGE_BYTES = 4096


def return_free_memory() -> None:
    """Returns freed memory to the system, so that the next measurement counts only memory in use."""
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def resident_bytes() -> int:
    """The current resident size of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def peak_bytes() -> int:
    """The peak resident size of this program. (`getrusage` includes the peak of the parent before `exec`.)"""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # pyright: ignore[reportOptionalSubscript]


class Peak:
    """A context manager that measures the peak resident size, sampled every half millisecond.

    Attributes:
        before_bytes: Resident size on entry.
        bytes: Peak resident size since entry.
    """

    def __enter__(self) -> "Peak":
        self.before_bytes = self.bytes = resident_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.0005):
            self.bytes = max(self.bytes, resident_bytes())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
