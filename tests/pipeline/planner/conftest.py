"""Fixtures of the planner's tests."""

from pathlib import Path

import pytest

from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.stats.target_statistics import Statistics


@pytest.fixture
def finished_dataset(tmp_path: Path) -> str:
    """A snapshot of an annotation of 1,000 tokens in 10 s and 90,000 bytes."""
    out = str(tmp_path / "out")
    record = UnitRecord(
        name="u",
        kind="targets",
        split="train",
        size_bytes=90_000,
        num_windows=1,
        num_positions=1000,
        statistics=Statistics(),
        environment={"device": {"model": "a core"}},
        timings={"score_seconds": 10.0},
    )
    write_draft(out, Draft.of_records([record], complete=True, identity=Identity(), num_documents_in=1, rejected={}))
    return out
