"""What the loss head costs: ours beside plain cross-entropy, TRL's tail bucket, and the dense way.

    python bench/loss.py [--all] [--repetitions 9] [--json FILE]

Each column is the whole head, forward and backward from hidden states [T, D] and weight [V, D]: the vocabulary
projection is part of it. The columns take turns in one process, and each is compared with plain cross-entropy in the
same round, so that what slows the machine slows both. Memory is measured in a process of its own for each column: the
highest resident size (on a GPU: allocated bytes) during one forward and backward pass, above what the inputs took
before, less the gradients returned.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from loss_columns import BASELINE, COLUMNS, CPU, DENSE, GPU, MORE_COLUMNS, Problem, Size, add_tail_bucket
from torch import Tensor

ALL_COLUMNS = COLUMNS | MORE_COLUMNS


def run_once(loss: Callable[[Problem], Tensor], problem: Problem) -> float:
    """Seconds of one forward and backward pass."""
    problem.hidden.grad = problem.weight.grad = None
    _synchronize(problem)
    start = time.perf_counter()
    loss(problem).backward()
    _synchronize(problem)
    return time.perf_counter() - start


def _synchronize(problem: Problem) -> None:
    if problem.hidden.is_cuda:
        torch.cuda.synchronize()


def measure_times(names: Sequence[str], size: Size, repetitions: int) -> dict[str, list[float]]:
    """Seconds of each column in each round; columns that do not fit into memory are left out."""
    problem = Problem.random(size)
    seconds: dict[str, list[float]] = {}
    for name in names:
        try:
            run_once(ALL_COLUMNS[name], problem)  # warm
        except torch.OutOfMemoryError:
            print(f"{name}: out of memory", file=sys.stderr)
        else:
            seconds[name] = []
    for repetition in range(repetitions):
        # Backwards every other round, so that no column always follows the same one.
        for name in list(seconds)[:: -1 if repetition % 2 else 1]:
            seconds[name].append(run_once(ALL_COLUMNS[name], problem))
    return seconds


def extra_bytes(name: str, size: Size) -> int:
    """Peak memory of one pass above the inputs, less the gradients it returns; for a process of its own."""
    problem = Problem.random(size)
    gradients = problem.hidden.nbytes + problem.weight.nbytes
    if size.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run_once(ALL_COLUMNS[name], problem)
        return torch.cuda.max_memory_allocated() - before - gradients
    small = Size(device="cpu", dtype=size.dtype, num_positions=8, width=8, vocab_size=400, k=4)
    run_once(ALL_COLUMNS[name], Problem.random(small))  # libraries load, threads start
    _return_free_memory()
    before, peak = _resident_bytes(), _Peak()
    with peak:
        run_once(ALL_COLUMNS[name], problem)
    return peak.bytes - before - gradients


def _return_free_memory() -> None:
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class _Peak:
    """The highest resident size while it is entered, looked at every half millisecond."""

    def __enter__(self) -> "_Peak":
        self.bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.0005):
            self.bytes = max(self.bytes, _resident_bytes())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def measure_memory(names: list[str], size: Size) -> dict[str, int]:
    """Extra bytes of each column, each in a process of its own."""
    found = {}
    for name in names:
        command = [sys.executable, __file__, "--memory-of", name, "--device", size.device]
        found[name] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def report(names: Sequence[str], size: Size, repetitions: int) -> dict[str, dict[str, float]]:
    """Measures and prints one table."""
    seconds = measure_times(names, size, repetitions)
    memory = measure_memory(list(seconds), size)
    print(json.dumps(asdict(size)), f"threads={torch.get_num_threads()} rounds={repetitions}")
    print(f"{'':<24}{'milliseconds':>14}{'× cross-entropy':>17}{'extra MiB':>11}{'× dense':>9}")
    rows = {}
    for name, times in seconds.items():
        rows[name] = {
            "milliseconds": 1e3 * statistics.median(times),
            "ratio": statistics.median(a / b for a, b in zip(times, seconds[BASELINE], strict=True)),
            "extra_mib": memory[name] / 2**20,
            "of_dense": memory[name] / memory[DENSE] if DENSE in memory else float("nan"),
        }
        figures = rows[name].values()
        print(f"{name:<24}" + "{:>14.1f}{:>17.3f}{:>11.1f}{:>9.3f}".format(*figures))
    if add_tail_bucket is None:
        print("TRL is not installed (dependency group `bench`): its column is left out")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="more of our losses, and the plain reference")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=["cpu", "cuda"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(extra_bytes(options.memory_of, GPU if options.device == "cuda" else CPU))
        return
    sizes = [CPU, GPU] if torch.cuda.is_available() else [CPU]
    names = list(ALL_COLUMNS if options.all else COLUMNS)
    figures = [{"size": asdict(size), "columns": report(names, size, options.repetitions)} for size in sizes]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
