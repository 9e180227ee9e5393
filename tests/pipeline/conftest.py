"""Fixtures of the job's tests."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def leave_lease(tmp_path: Path) -> Callable[..., None]:
    """leave_lease(unit, process, number=0, started_at=…) writes a lease to `tmp_path`, as a dead worker leaves it."""

    def leave(unit: str, process: str, number: int = 0, started_at: str = "2026-01-01T00:00:00+00:00") -> None:
        (tmp_path / "attempts").mkdir(exist_ok=True)
        lease = {"unit": unit, "process": process, "started_at": started_at, "phase": "encode", "ending": None}
        (tmp_path / f"attempts/{unit}~{number:08x}.json").write_text(json.dumps(lease))

    return leave
