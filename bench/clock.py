"""Processor time of this process, so that other work on the machine has little influence."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def timed(work: Callable[[], Any], repeats: int = 3) -> tuple[Any, float]:
    """The result, and the minimum processor time of up to `repeats` runs; one run is enough if it takes over 2 s."""
    best = np.inf
    for _ in range(repeats):
        started = time.process_time()
        result = work()
        best = min(best, time.process_time() - started)
        if best > 2:
            break
    return result, best


def in_turns(works: Mapping[str, Callable[[], Any]], rounds: int = 3) -> dict[str, float]:
    """The minimum processor time of each, run in turns: other work on the machine then slows all of them equally."""
    best = dict.fromkeys(works, np.inf)
    for _ in range(rounds):
        for name, work in works.items():
            best[name] = min(best[name], timed(work, repeats=1)[1])
    return best
