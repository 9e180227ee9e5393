"""Resident memory of this process, watched while something runs."""

import ctypes
import re
import sys
import threading
from pathlib import Path
from types import TracebackType

_PAGE_BYTES = 4096


def return_free_memory() -> None:
    """Gives back to the system what was freed, so that the next reading is of what is used."""
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def resident_bytes() -> int:
    """Of this process, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def peak_bytes() -> int:
    """This program's largest so far. (What `getrusage` tells begins with that of the process it came from.)"""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # pyright: ignore[reportOptionalSubscript]


class Peak:
    """The highest resident size while it is entered, looked at every half millisecond.

    Attributes:
        before_bytes: Resident when it was entered.
        bytes: The highest since.
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
