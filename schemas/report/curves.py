"""A training run's curves, read from its files; no training code is imported.

RUN/metrics.jsonl   one line for each step
RUN/results.json    held-out evaluation before and after training; only in finished runs
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from logitcask.schemas.errors import UsageError

# About the width of a plot in pixels; more points would not be visible.
MAX_POINTS = 400
_LEFT_OUT = ("step", "epoch", "tokens", "train_runtime", "train_samples_per_second", "train_steps_per_second")


def describe_run(directory: Path) -> dict[str, Any]:
    """The run's curves and its evaluation.

    Raises:
        UsageError: `directory` is not the directory of a run.
    """
    path = directory / "metrics.jsonl"
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise UsageError(f"--run {directory}: no metrics.jsonl ({error.strerror}); give the --out of a run") from error
    rows = [row for row in map(_parsed, lines) if row is not None and "loss" in row]
    per_point = max(1, math.ceil(len(rows) / MAX_POINTS))
    return {
        "run": directory.name,
        "steps": max((row["step"] for row in rows), default=0),
        "steps_per_point": per_point,
        "curves": _curves(rows, per_point),
        "held_out": _held_out(directory / "results.json"),
    }


def _parsed(line: str) -> dict[str, Any] | None:
    """A parsed line; None for a line that was cut short when the run was killed."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _curves(rows: Sequence[Mapping[str, Any]], per_point: int) -> dict[str, Any]:
    """Steps, and for each metric the means over groups of `per_point` steps; null where no value is finite."""
    chunks = [rows[start : start + per_point] for start in range(0, len(rows), per_point)]
    names = dict.fromkeys(name for row in rows for name in row if name not in _LEFT_OUT)
    return {
        "step": [chunk[-1]["step"] for chunk in chunks],
        "values": {name: [_mean(row.get(name) for row in chunk) for chunk in chunks] for name in names},
    }


def _mean(values: Iterable[Any]) -> float | None:
    finite = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return float(f"{sum(finite) / len(finite):.6g}") if finite else None


def _held_out(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    found = json.loads(path.read_text())["held_out"]
    return found if found.get("before") and found.get("after") else None
