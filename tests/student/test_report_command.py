"""`logitcask report`: the page, its data as JSON, and the errors of a run's student."""

import json
import os

import pytest
import report_dataset
from report_dataset import VOCAB_SIZE

from logitcask.schemas import cli
from logitcask.schemas.dataset.snapshot import Snapshot


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return report_dataset.write_dataset(str(tmp_path_factory.mktemp("report") / "cask"))


def test_the_command_writes_the_same_bytes_each_time(snapshot, tmp_path, capsys):
    pages = []
    for name in ("a.html", "b.html"):
        assert cli.main(["report", snapshot.url, "--html", str(tmp_path / name)]) == 0
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
    assert "12 of 12 windows, 564 tokens" in capsys.readouterr().err


def test_the_umask_decides_who_may_read_the_page(snapshot, tmp_path):
    before = os.umask(0o022)
    try:
        assert cli.main(["report", snapshot.url, "--html", str(tmp_path / "out.html")]) == 0
    finally:
        os.umask(before)
    assert (tmp_path / "out.html").stat().st_mode & 0o777 == 0o644


def test_the_command_prints_the_data_as_json(snapshot, capsys):
    assert cli.main(["report", snapshot.url, "--windows", "3", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == "logitcask.report/1"
    assert len(printed["windows"]) == 3
    assert max(printed["pieces"]["id"]) < VOCAB_SIZE


def test_a_configuration_file_can_name_the_run(snapshot, tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2}')
    (tmp_path / "report.toml").write_text(f'run = "{tmp_path}"\nscore = false\njson = true\n')
    assert cli.main(["report", snapshot.url, "--config", str(tmp_path / "report.toml")]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["steps"] == 1


def test_the_page_shows_the_errors_of_a_runs_student(dataset_url, student_directory, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    assert cli.main(["report", dataset_url, "--run", str(run), "--html", str(tmp_path / "a.html")]) == 0
    assert "has no student yet" in capsys.readouterr().err
    (run / "student").symlink_to(student_directory)
    assert cli.main(["report", dataset_url, "--run", str(run), "--html", str(tmp_path / "b.html")]) == 0
    assert b'"student":{"kl":[' in (tmp_path / "b.html").read_bytes()
    assert b'"student":{"kl":[' not in (tmp_path / "a.html").read_bytes()
