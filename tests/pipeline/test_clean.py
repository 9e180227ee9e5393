"""Cleaning: removes leftovers of killed runs, keeps every file that is needed, and refuses during a run."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from random_shards import IDENTITY, random_targets, random_windows

from logitcask.pipeline import clean as clean_module
from logitcask.pipeline.clean import RunIsActiveError
from logitcask.pipeline.commands import Clean
from logitcask.pipeline.tokenization.token_shards import token_shard
from logitcask.pipeline.units.annotation_units import AnnotationUnit, annotation_unit
from logitcask.pipeline.units.processes import this_process
from logitcask.schemas import storage
from logitcask.schemas.dataset.dataset_writer import write_shard
from logitcask.schemas.dataset.layout import write_configuration
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.dataset.token_unit_record import TokenUnitRecord, token_unit_record_path
from logitcask.schemas.errors import ForeignOutputError, UsageError
from logitcask.schemas.seals import create_sealed

DAYS_AGO = 1_700_000_000


def commit(out: Path, kind: Literal["tokens", "targets"], name: str) -> UnitRecord:
    rng = np.random.default_rng(0)
    windows = random_windows(rng, [5])
    targets = random_targets(rng, windows) if kind == "targets" else None
    return write_shard(str(out), IDENTITY.shard_metadata(kind, "train"), name, windows, targets)


def tokenize(out: Path, number: int) -> AnnotationUnit:
    """Finishes a token unit of one shard; returns the unit that annotates it."""
    tokens = token_shard(commit(out, "tokens", f"{number:06d}-0000-abc"))
    unit = TokenUnitRecord(name=f"{number:06d}-abc", num_documents=1, rejected={}, shards=(tokens,))
    create_sealed(storage.join(str(out), token_unit_record_path(unit.name)), unit.to_json())
    return annotation_unit(tokens, IDENTITY.target_fingerprint())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A dataset whose first unit is in a snapshot, whose second was finished since, and whose third is tokenized."""
    write_configuration(str(tmp_path), identity=IDENTITY, environment={})
    units = [tokenize(tmp_path, number) for number in range(3)]
    first = commit(tmp_path, "targets", units[0].name)
    draft = Draft.of_records([first], complete=False, identity=IDENTITY, num_documents_in=3, rejected={})
    write_draft(str(tmp_path), draft)
    commit(tmp_path, "targets", units[1].name)
    return tmp_path


def age(out: Path) -> None:
    for path in out.rglob("*"):
        os.utime(path, (DAYS_AGO, DAYS_AGO))


def files(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def clean(out: Path, **options: Any) -> dict[str, str]:
    removals = clean_module.clean(str(out), older_than=timedelta(hours=1), **options)
    return {removal.path: removal.what for removal in removals}


def test_files_that_a_snapshot_or_a_resumed_run_needs_are_kept(out: Path) -> None:
    age(out)
    before = files(out)
    assert clean(out) == {}
    assert files(out) == before


def litter(out: Path, leave_lease: Callable[..., None]) -> dict[str, str]:
    """Adds every kind of leftover of killed runs; returns their kinds by path."""
    (out / "targets/train/.tmp-abc").write_bytes(b"half")
    commit(out, "tokens", "000009-0000-abc")
    commit(out, "targets", "000000-0000-of-another-teacher")
    (out / "snapshots/000002-lost-the-race.parquet").write_bytes(b"x")
    leave_lease("000001-abc", "elsewhere:1:1")
    return {
        "targets/train/.tmp-abc": "temporary file",
        "tokens/train/000009-0000-abc.parquet": "token shard",
        "tokens/train/000009-0000-abc.json": "token shard",
        "targets/train/000000-0000-of-another-teacher.parquet": "target shard",
        "targets/train/000000-0000-of-another-teacher.json": "target shard",
        "snapshots/000002-lost-the-race.parquet": "list of shards",
        "attempts/000001-abc~00000000.json": "lease",
    }


def test_only_leftovers_of_killed_runs_are_removed(out: Path, leave_lease: Callable[..., None]) -> None:
    before = files(out)
    left = litter(out, leave_lease)
    leave_lease("000002-0000-unfinished", "elsewhere:1:1")
    age(out)
    assert clean(out, dry_run=True) == left
    assert files(out) == before | set(left) | {"attempts/000002-0000-unfinished~00000000.json"}
    assert clean(out) == left
    assert files(out) == before | {"attempts/000002-0000-unfinished~00000000.json"}


def test_recent_files_are_kept(out: Path, leave_lease: Callable[..., None]) -> None:
    litter(out, leave_lease)
    assert clean(out) == {}


def test_cleaning_is_refused_during_a_run(out: Path, leave_lease: Callable[..., None]) -> None:
    leave_lease("000002-abc", this_process())
    with pytest.raises(RunIsActiveError, match="has worked on unit 000002-abc"):
        clean(out)


def test_a_directory_that_is_not_a_dataset_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / ".tmp-of-another").write_bytes(b"x")
    with pytest.raises(ForeignOutputError, match="not a dataset"):
        clean(tmp_path)
    assert files(tmp_path) == {".tmp-of-another"}


def test_the_command_lists_files_and_totals(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / "tokens/.tmp-x").write_bytes(b"12345")
    age(out)
    assert Clean(out=str(out), dry_run=True).run() == 0
    assert capsys.readouterr().out.splitlines() == [
        "would remove tokens/.tmp-x (temporary file, 5 bytes)",
        "would remove 1 files, 5 bytes (temporary file: 1)",
    ]
    assert Clean(out=str(out), json=True).run() == 0
    assert '"path": "tokens/.tmp-x"' in capsys.readouterr().out
    with pytest.raises(UsageError, match="--older-than"):
        Clean(out=str(out), older_than=-1.0).run()
