"""The command line of the job: imports, options, exit statuses and the summary."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from logitcask.pipeline.commands import Annotate, summary
from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.job import JobResult
from logitcask.schemas.cli import main, parse_command
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.dataset.split_summary import SplitSummary

WORDS = ["texts", "--teacher", "t", "--out", "o"]


def test_importing_the_command_imports_nothing_heavy() -> None:
    heavy = ("torch", "apache_beam", "pyarrow")
    code = f"import sys, logitcask.pipeline.commands; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_flags_set_the_fields_of_the_configuration() -> None:
    words = [*WORDS, "more", "--head", "topk", "--k", "64", "--no-entropy", "--shard-tokens", "4096", "--held-out", "0"]
    parsed = parse_command(Annotate, "annotate", ["extra", *words[:1], *words[1:5], *words[6:]])
    assert isinstance(parsed, AnnotateConfig)
    assert parsed == Annotate(
        corpus=("extra", "texts"),
        teacher="t",
        out="o",
        head="topk",
        k=64,
        entropy=False,
        shard_tokens=4096,
        held_out=0.0,
    )


def test_help_explains_every_option_and_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        parse_command(Annotate, "annotate", ["--help"])
    text = capsys.readouterr().out
    assert exited.value.code == 0
    for field in dataclasses.fields(AnnotateConfig):
        assert field.name.replace("_", "-") in text.lower()
    assert "logitcask annotate texts/ --teacher google/gemma-2-2b --out cask" in text
    assert "License of the text" in text


def test_bad_usage_ends_with_status_2_and_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["annotate", *WORDS[:3], "--out", str(tmp_path / "out"), "--runner", "ray"]) == 2
    captured = capsys.readouterr()
    expected = "logitcask: error: --runner ray: choose one of local, dask, portable, flink, spark, dataflow\n"
    assert captured.err == expected
    assert not captured.out


def test_a_missing_corpus_ends_with_status_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["annotate", "nowhere", "--teacher", "t", "--out", str(tmp_path / "out")]) == 1
    assert "no file found" in capsys.readouterr().err


def result(**changes: object) -> JobResult:
    snapshot = Snapshot(
        url="cask",
        number=1,
        complete=True,
        identity=Identity(),
        num_documents_in=12,
        rejected={"empty": 1, "malformed_json": 1},
        splits={
            "train": SplitSummary(num_shards=2, num_windows=8, num_positions=3000, num_documents=9, size_bytes=270_000),
            "held-out": SplitSummary(num_shards=1, num_windows=1, num_positions=100, num_documents=1, size_bytes=9_000),
        },
        shards_file="f",
        shards_digest="d",
    )
    settings = {"out": "cask", "snapshot": snapshot, "num_units": 4, "num_annotated_positions": 3100, "seconds": 10.0}
    return JobResult(**{**settings, **changes})  # pyright: ignore[reportArgumentType]


def test_the_summary_lists_results_and_the_next_command() -> None:
    assert summary(result()).splitlines() == [
        "documents  12 in, 10 annotated, 2 rejected (empty 1, malformed_json 1)",
        "tokens     3,100, including 100 held out",
        "shards     3, 279,000 bytes",
        "size       90.0 bytes/token",
        "speed      310 tokens/s in this run",
        "snapshot   cask/snapshots/000001.json",
        "next       logitcask inspect cask",
    ]


def test_the_summary_notes_an_empty_held_out_split() -> None:
    snapshot = result().snapshot
    only = {"train": snapshot.splits["train"]}
    wanted = dataclasses.replace(snapshot, splits=only, identity=Identity(held_out=0.01))
    assert "note       the held-out split got no document" in summary(result(snapshot=wanted))
    unwanted = dataclasses.replace(wanted, identity=Identity(held_out=0.0))
    assert "note" not in summary(result(snapshot=unwanted))


def test_the_summary_of_a_finished_job_says_nothing_was_to_do() -> None:
    assert "nothing to do: the dataset is already finished" in summary(result(num_units=0))


def test_the_summary_of_a_finished_job_says_what_was_not_compared() -> None:
    note = "only sizes and footers of shards were compared; --verify compares every byte"
    assert note in summary(result(num_units=0))
    assert note not in summary(result(num_units=0), is_verified=True)
    assert note not in summary(result())
