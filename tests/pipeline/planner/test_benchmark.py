"""Measuring a teacher on this machine."""

import json

import pytest

from logitcask.schemas import cli


@pytest.mark.slow
def test_measuring_runs_the_teacher(capsys, tiny_teacher):
    words = ["plan", "--teacher", str(tiny_teacher), "--tokens", "1e6", "--window", "64", "--measure", "--json"]
    assert cli.main(words) == 0
    shown = capsys.readouterr()
    plan = json.loads(shown.out)
    assert plan["teacher"]["rate_is"] == "measured"
    assert str(plan["teacher"]["tokens_per_second_per_gpu"]) in shown.err
    assert plan["teacher"]["gpu_hours"] == pytest.approx(1e6 / plan["teacher"]["tokens_per_second_per_gpu"] / 3600)
