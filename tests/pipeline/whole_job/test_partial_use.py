"""Looking at a job that has not finished."""

import json
import re
import shutil
from pathlib import Path

import pytest

from logitcask.pipeline.job import JobResult
from logitcask.schemas import cli

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")


@pytest.fixture
def unfinished(job_out: Path) -> Path:
    """The dataset of a job that ended before its last two units and its snapshot."""
    shutil.rmtree(job_out / "snapshots")
    for record in sorted(job_out.glob("targets/train/*.json"))[-2:]:
        record.unlink()
    return job_out


def test_inspect_shows_the_finished_units_of_an_unfinished_job(
    unfinished: Path, finished_job: JobResult, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = finished_job.snapshot
    last_two = whole.shards("train")[-2:]
    assert cli.main(["inspect", str(unfinished), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["snapshot"], shown["complete"], shown["missing_units"]) == (None, False, 2)
    left = whole.total().num_positions - sum(entry.num_positions for entry in last_two)
    assert shown["total"]["tokens"] == left
    assert shown["documents"]["in"] == whole.num_documents_in
    for words in (["inspect", str(unfinished)], ["inspect", str(unfinished), "--deep"]):
        assert cli.main(words) == 0
        assert "no snapshot yet PARTIAL 2 units missing" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["inspect", str(unfinished), "--window", "0"]) == 0


def test_verify_checks_the_finished_units_of_an_unfinished_job(
    unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", str(unfinished)]) == 1
    printed = capsys.readouterr().out
    assert "the dataset is partial" in printed
    assert "partial dataset, no snapshot yet" in printed
    assert "1 faults" in printed
    min(unfinished.glob("targets/train/*.parquet")).write_bytes(b"")
    assert cli.main(["verify", str(unfinished)]) == 1
    assert "2 faults" in capsys.readouterr().out


def test_report_shows_the_finished_units_of_an_unfinished_job(unfinished: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert cli.main(["report", str(unfinished), "--html", str(page)]) == 0
    assert re.search(r"\"snapshot\": ?null", page.read_text())


def test_verify_accounts_for_every_file_of_a_finished_job(
    finished_job: JobResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", finished_job.out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []
