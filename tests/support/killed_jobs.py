"""Runs one job again and again in forks of a process that has imported everything, and kills each run as a whole.

    python killed_jobs.py KILLS SEED WORDS…

A fork of a warm process starts in no time, so that twenty whole jobs can be killed within a test. Each has a process
group of its own, because a machine loses driver and workers together. The moment of each kill is random; every sixth
one waits until the job is inside a unit.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import echo_scorer

from logitcask.pipeline.execution import transforms
from logitcask.pipeline.runners import run_stage
from logitcask.schemas.cli import console

IMPORTED = (transforms, run_stage)


def start(words: list[str]) -> int:
    """Starts the job in a fork; returns its process, which leads its group."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            console(words)
        finally:
            os._exit(1)
    return pid


def main(num_kills: int, seed: int, words: list[str]) -> None:
    """Prints how many of the kills hit a running job, and how many of those held a unit."""
    echo_scorer.install()
    rng = random.Random(seed)
    num_hit = num_holding = 0
    for number in range(num_kills):
        pid = start(words)
        if number % 6 == 1:
            wait_for_points(rng.randrange(1, 8))
        time.sleep(rng.uniform(0.0, 0.5))
        held = set(leases(words))
        os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        num_hit += os.WIFSIGNALED(status)
        num_holding += bool(held & set(leases(words)))
    print(num_hit, num_holding)


def wait_for_points(number: int) -> None:
    """Waits until this number of fault points was reached from now on."""
    log = Path(os.environ["LOGITCASK_FAULTS"]) / "log"
    before, limit_seconds = num_lines(log), time.monotonic() + 60
    while num_lines(log) < before + number and time.monotonic() < limit_seconds:
        time.sleep(0.002)


def num_lines(log: Path) -> int:
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def leases(words: list[str]) -> list[Path]:
    return list(Path(words[words.index("--out") + 1], "attempts").glob("*.json"))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
