"""Beam's counters of the annotation stage, and the same progress as lines of JSON."""

import dataclasses
import json
from pathlib import Path

import pytest

from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.job import annotate
from logitcask.pipeline.runners import run_stage

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path, english: str) -> AnnotateConfig:
    directory = tmp_path_factory.mktemp("counted")
    (directory / "a.txt").write_text(english[:2000])
    return AnnotateConfig(
        corpus=(str(directory / "a.txt"),),
        teacher=str(tiny_teacher),
        out=str(directory / "out"),
        window=64,
        shard_tokens=256,
        held_out=0.0,
        threads=1,
        device="cpu",
    )


def test_counters_and_lines_count_the_annotated_units(
    config: AnnotateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    run = run_stage._run

    def keep(units, transform, runner, options) -> None:
        ran = runner.run_pipeline
        runner.run_pipeline = lambda *args, **more: results.append(ran(*args, **more)) or results[-1]
        run(units, transform, runner, options)

    monkeypatch.setattr(run_stage, "_run", keep)
    beats = tmp_path / "beats"
    done = annotate(dataclasses.replace(config, heartbeat=str(beats)), quiet=True)
    counters = {
        counter.key.metric.name: counter.committed
        for counter in results[-1].metrics().query()["counters"]
        if counter.key.metric.namespace == "logitcask"
    }
    total = done.snapshot.total()
    assert counters["annotated_units"] == total.num_shards > 1
    assert counters["annotated_tokens"] == total.num_positions > 500
    assert 0 < counters["forward_milliseconds"] <= counters["unit_milliseconds"]
    last = json.loads(beats.read_text().splitlines()[-1])
    assert (last["stage"], last["done"], last["total"]) == ("annotate", total.num_positions, total.num_positions)
    assert 0 < last["forward_share"] < 1
    assert json.loads(beats.read_text().splitlines()[0])["stage"] == "tokenize"
