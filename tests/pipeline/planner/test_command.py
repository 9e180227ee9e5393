"""`logitcask plan`: what it prints, in which words, and that its JSON is documented."""

import json
import re

import pytest
from repository import ROOT

from logitcask.schemas import cli
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.layout import write_configuration

PAGE = ROOT / "docs/plan-json.md"
WORDS = ["plan", "--teacher", "google/gemma-2-27b", "--tokens", "2e12"]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert cli.main([*WORDS, *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def leaves(value, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {leaf for key, one in value.items() for leaf in leaves(one, f"{path}.{key}" if path else key)}
    if isinstance(value, list):
        return {leaf for one in value for leaf in leaves(one, f"{path}[]")} or {f"{path}[]"}
    return {path}


def test_every_key_is_explained_and_every_explained_key_is_printed(capsys, tmp_path, finished_dataset):
    found = leaves(run(capsys, "--against", finished_dataset))
    patterns = set(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE))
    matched = {
        pattern: {leaf for leaf in found if re.fullmatch(re.sub(r"<\w+>", r"\\w+", re.escape(pattern)), leaf)}
        for pattern in patterns
    }
    assert not [pattern for pattern, leaves_ in matched.items() if not leaves_]
    assert found == set().union(*matched.values())


@pytest.fixture
def finished_dataset(tmp_path) -> str:
    """An annotated dataset's snapshot: 1,000 tokens in 10 s and 90,000 bytes."""
    from logitcask.schemas.dataset import snapshot_writer
    from logitcask.schemas.dataset.record import UnitRecord
    from logitcask.schemas.stats.target_statistics import Statistics

    out = str(tmp_path / "out")
    write_configuration(out, identity=Identity(), environment={})
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
    snapshot_writer.write_snapshot(
        out, complete=True, identity=Identity(), records=[record], num_documents_in=1, rejected={}
    )
    return out


def test_a_finished_job_stands_beside_its_plan(capsys, finished_dataset):
    real = run(capsys, "--against", finished_dataset)["against"]
    assert real["bytes_per_token"]["real"] == 90
    assert real["tokens_per_second"]["real"] == 100
    assert real["device_hours"]["real"] == pytest.approx(10 / 3600)
    assert real["device_hours"]["planned"] == pytest.approx(1000 / real["tokens_per_second"]["planned"] / 3600)


def test_prices_hours_and_storage_follow_from_each_other(capsys):
    plan = run(capsys, "--gpu-hour", "2", "--gb-month", "0.01", "--gb-read", "0.001", "--months", "3")
    teacher, storage = plan["teacher"], plan["storage"]
    assert teacher["cost"] == pytest.approx(2 * teacher["gpu_hours"])
    assert teacher["gpu_hours"] == pytest.approx(2e12 / 8830 / 3600, rel=1e-3)
    assert storage["keep_cost"] == pytest.approx(storage["bytes"] / 1e9 * 0.01 * 3)
    assert storage["read_cost_per_pass"] == pytest.approx(storage["bytes"] / 1e9 * 0.001)
    assert storage["bytes"] == pytest.approx(196e12, rel=0.01)


def test_a_cheap_teacher_needs_more_passes(capsys):
    large = run(capsys)["break_even"]["passes"]
    small = run(capsys, "--teacher", "google/gemma-2-2b")["break_even"]["passes"]
    assert 1 < large < small
    assert run(capsys, "--gb-read", "5")["break_even"]["passes"] is None


def test_another_gpu_and_an_unknown_teacher_are_given_by_flags(capsys):
    words = [
        "--parameters",
        "7e9",
        "--d-model",
        "4096",
        "--vocab-size",
        "32000",
        "--peak-tflops",
        "100",
        "--mfu",
        "0.4",
    ]
    teacher = run(capsys, *words)["teacher"]
    assert teacher["flop_per_token"] == 2 * (7e9 + 4096 * 32_000)
    assert teacher["tokens_per_second_per_gpu"] == pytest.approx(0.4 * 100e12 / teacher["flop_per_token"])


def test_the_text_says_what_was_chosen(capsys):
    assert cli.main([*WORDS, "--scheme", "topk", "--k", "64"]) == 0
    shown = capsys.readouterr().out
    for expected in ("2 T tokens", "62,912 GPU hours", "the 64 largest, and the exact tail", "caching is cheaper from"):
        assert expected in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_the_readme_shows_what_is_printed(capsys):
    readme = (PAGE.parents[1] / "README.md").read_text()
    command = "logitcask plan --teacher google/gemma-2-27b --tokens 2e12 --scheme adaptive"
    shown = readme.split(f"$ {command}\n")[1].split("```")[0]
    assert cli.main(command.split()[1:]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == shown.splitlines()


@pytest.mark.parametrize(
    "words", [["--mfu", "1.5"], ["--gpus", "0"], ["--months", "-1"], ["--parameters", "7e9"], ["--tokens", "-3"]]
)
def test_settings_that_cannot_be_meant_are_refused(words, capsys):
    assert cli.main([*WORDS, *words]) == 2
    assert "--" in capsys.readouterr().err


def test_planning_imports_nothing_heavy():
    import subprocess
    import sys

    program = (
        f"import sys; from logitcask.schemas import cli; cli.main({WORDS!r}); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert not loaded & {"torch", "transformers", "apache_beam", "pyarrow"}


@pytest.mark.slow
def test_measuring_runs_the_teacher(capsys, tiny_teacher):
    words = ["plan", "--teacher", str(tiny_teacher), "--tokens", "1e6", "--window", "64", "--measure", "--json"]
    assert cli.main(words) == 0
    shown = capsys.readouterr()
    plan = json.loads(shown.out)
    assert plan["teacher"]["rate_is"] == "measured"
    assert str(plan["teacher"]["tokens_per_second_per_gpu"]) in shown.err
    assert plan["teacher"]["gpu_hours"] == pytest.approx(1e6 / plan["teacher"]["tokens_per_second_per_gpu"] / 3600)
