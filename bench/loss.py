"""What the fused loss costs, compared with plain cross-entropy, TRL's tail bucket, and a dense loss.

    python bench/loss.py [--all] [--repetitions 9] [--size cpu] [--json FILE]

Each column is the projection and the loss, forward and backward, from hidden states [T, D] and weight [V, D]. The
columns alternate in one process, and each is compared with plain cross-entropy in the same round, so that a slow
machine slows both. Memory is measured in a separate process for each column: the highest resident size (on a GPU:
allocated bytes) during one forward and backward pass, above that of the inputs, minus the returned gradients.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from loss_columns import (
    BASELINE,
    COLUMNS,
    DENSE,
    LONG,
    LONG_COLUMNS,
    MORE_COLUMNS,
    SIZES,
    TRL,
    Problem,
    Size,
    add_tail_bucket,
)
from memory import Peak, return_free_memory
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
    """Seconds of each column in each round, without columns that do not fit into memory."""
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
        # In reverse every other round, so that no column always follows the same one.
        for name in list(seconds)[:: -1 if repetition % 2 else 1]:
            seconds[name].append(run_once(ALL_COLUMNS[name], problem))
    return seconds


def check_agreement(size: Size) -> None:
    """What is timed is the same loss: ours, the plain reference and TRL's tail bucket give one number.

    Raises:
        SystemExit: they differ by more than rounding.
    """
    problem = Problem.random(replace(size, num_positions=64, width=64, vocab_size=4000, k=16))
    names = [name for name in ("ours", "plain reference", TRL) if name in ALL_COLUMNS]
    losses = {name: ALL_COLUMNS[name](problem).item() for name in names}
    tolerance = 1e-5 if size.dtype == "float32" else 1e-2
    if max(losses.values()) - min(losses.values()) > tolerance * max(losses.values()):
        raise SystemExit(f"the columns disagree about the loss: {losses}")


def extra_bytes(name: str, size: Size) -> int:
    """Peak memory of one pass above the inputs, minus the gradients it returns; for a separate process."""
    # Load libraries, start threads, compile kernels, allocate the workspace of cuBLAS.
    warm = replace(size, num_positions=8, width=min(size.width, 64), vocab_size=4000, k=4)
    run_once(ALL_COLUMNS[name], Problem.random(warm))
    problem = Problem.random(size)
    gradients = problem.hidden.nbytes + problem.weight.nbytes
    if size.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run_once(ALL_COLUMNS[name], problem)
        return torch.cuda.max_memory_allocated() - before - gradients
    return_free_memory()
    with Peak() as peak:
        run_once(ALL_COLUMNS[name], problem)
    return peak.bytes - peak.before_bytes - gradients


def measure_memory(names: Sequence[str], size: str) -> dict[str, int]:
    """Extra bytes of each column, each in a separate process."""
    found = {}
    for name in names:
        command = [sys.executable, __file__, "--memory-of", name, "--size", size]
        found[name] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def report(names: Sequence[str], size: str, repetitions: int) -> dict[str, dict[str, float]]:
    """Measures and prints one table."""
    check_agreement(SIZES[size])
    seconds = measure_times(names, SIZES[size], repetitions)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # for the processes that measure memory
    memory = measure_memory(list(seconds), size)
    print(json.dumps(asdict(SIZES[size])), f"threads={torch.get_num_threads()} rounds={repetitions}")
    print(f"{'':<24}{'milliseconds':>14}{'× cross-entropy':>17}{'extra MB':>11}{'× dense':>9}")
    rows = {}
    for name, times in seconds.items():
        baseline = seconds.get(BASELINE, [float("nan")] * len(times))
        rows[name] = {
            "milliseconds": 1e3 * statistics.median(times),
            "ratio": statistics.median(a / b for a, b in zip(times, baseline, strict=True)),
            "extra_mb": memory[name] / 1e6,
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
    parser.add_argument("--size", choices=list(SIZES), help="only this one; by default all that this machine can run")
    options = parser.parse_args()
    if options.memory_of:
        print(extra_bytes(options.memory_of, SIZES[options.size]))
        return
    able = [name for name, size in SIZES.items() if size.device == "cpu" or torch.cuda.is_available()]
    figures = []
    for size in [options.size] if options.size else able:
        names = LONG_COLUMNS if size in LONG else list(ALL_COLUMNS if options.all else COLUMNS)
        figures.append({"size": asdict(SIZES[size]), "columns": report(names, size, options.repetitions)})
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
