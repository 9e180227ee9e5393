"""Fixtures of the job's tests."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def leave_mark(tmp_path: Path) -> Callable[..., None]:
    """leave_mark(unit, process, number=0, started_at=…): as a worker that took a unit leaves it in `tmp_path`."""

    def leave(unit: str, process: str, number: int = 0, started_at: str = "2026-01-01T00:00:00+00:00") -> None:
        (tmp_path / "attempts").mkdir(exist_ok=True)
        mark = {"unit": unit, "process": process, "started_at": started_at, "phase": "encode", "ending": None}
        (tmp_path / f"attempts/{unit}~{number:08x}.json").write_text(json.dumps(mark))

    return leave
