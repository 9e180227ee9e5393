"""`logitcask select`, `forget`, `compact` and `merge` on the command line."""

import json
import subprocess
import sys

import pytest
from random_shards import write_annotated_dataset

from logitcask.schemas import cli
from logitcask.schemas.dataset.snapshot import snapshot_numbers


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(list(words)) == 0
    return capsys.readouterr().out


def test_select_then_forget_then_compact(annotated_copy, capsys):
    shown = run(
        capsys, "select", annotated_copy, "--source", "*/a0.txt", "*/a1.txt", "--max-loss", "8", "--kind", "train"
    )
    assert "snapshot 2, made from snapshot 1, which does not change" in shown
    report = json.loads(run(capsys, "forget", annotated_copy, "a0-0", "a1-1", "--json"))
    assert (report["base"], report["snapshot"]) == (2, 3)
    assert report["before"]["documents"] - report["after"]["documents"] == report["removed"]["forgotten"] == 2
    assert "nothing to do" in run(capsys, "forget", annotated_copy, "a0-0")
    assert "snapshots that can no longer be read: 1, 2, 3" in run(capsys, "compact", annotated_copy)
    assert json.loads(run(capsys, "compact", annotated_copy, "--json"))["removed_files"] == []
    assert snapshot_numbers(annotated_copy) == [4]


def test_merge_says_what_it_made(annotated_dataset, tmp_path, capsys):
    write_annotated_dataset(str(tmp_path / "b"), prefix="b", seed=1)
    words = ["merge", annotated_dataset, str(tmp_path / "b"), "--out", str(tmp_path / "both")]
    assert f"{tmp_path / 'both'}: snapshot 1, 6 shards" in run(capsys, *words)
    assert json.loads(run(capsys, *words, "--json"))["num_shards"] == 6


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["forget", "OUT", "unknown"], 1, "no document 'unknown'"),
        (["forget", "OUT"], 2, "no documents to forget"),
        (["select", "OUT"], 2, "nothing to select by"),
        (["select", "OUT", "--min-loss", "5", "--max-loss", "2"], 2, "no loss lies between"),
        (["merge", "OUT", "--out", "OUT/both"], 2, "merge what?"),
        (["compact", "OUT/nowhere"], 1, "no snapshot here"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_status(annotated_dataset, capsys, words, status, error):
    assert cli.main([word.replace("OUT", annotated_dataset) for word in words]) == status
    assert error in capsys.readouterr().err
    assert snapshot_numbers(annotated_dataset) == [1]


def test_help_of_these_commands_imports_nothing_heavy():
    program = "import sys, logitcask.schemas.maintenance.commands, logitcask.pipeline.commands; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "transformers", "apache_beam", "pyarrow", "numpy"}
