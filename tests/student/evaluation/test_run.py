"""`logitcask eval`: the same values as the run's, and refusals."""

import json

import pytest

from logitcask.schemas import cli


def test_eval_gives_the_values_of_the_run(finished_run, run_dataset, capsys):
    assert cli.main(["eval", str(finished_run), "--shards", run_dataset, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    after = json.loads((finished_run / "results.json").read_text())["held_out"]["after"]
    assert measured.pop("full_kl_nats") is after.pop("full_kl_nats") is None
    assert measured == pytest.approx(after, rel=1e-5)


def test_eval_prints_a_table_of_the_chosen_split(finished_run, run_dataset, capsys):
    assert (
        cli.main(["eval", str(finished_run / "student"), "--shards", run_dataset, "--split", "train", "--windows", "1"])
        == 0
    )
    out = capsys.readouterr().out
    assert "calibration error (15 bins)" in out
    assert "full KL" not in out
    assert out.splitlines()[-1].endswith("in 1 windows")


def test_eval_refuses_shards_of_another_vocabulary(finished_run, dataset_url, capsys):
    assert cli.main(["eval", str(finished_run), "--shards", dataset_url]) == 1
    assert "a" * 32 in capsys.readouterr().err


def test_eval_refuses_a_directory_without_a_student(run_dataset, tmp_path, capsys):
    assert cli.main(["eval", str(tmp_path), "--shards", run_dataset]) == 2
    assert "no student's description" in capsys.readouterr().err
