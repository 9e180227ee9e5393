"""The commands: what they print, and options that do not go together."""

import subprocess
import sys

import pytest
from train_command import train_words

from logitcask.schemas import cli


def test_the_command_prints_before_and_after(run_dataset, pruned_student, tmp_path, capsys):
    cli.main(train_words(run_dataset, pruned_student, tmp_path / "run", "--eval-windows", "1"))
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["held-out", "before", "after"]
    assert out[1].startswith("KL to the teacher (nats)")
    assert out[-1] == f"student: {tmp_path / 'run' / 'student'}"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--teacher"),
        (["--teacher", "T"], "--keep-layers"),
        (["--teacher", "T", "--keep-layers", "0,x"], "0,x"),
        (["--teacher", "T", "--keep-layers", "0", "--layers", "1"], "--keep-layers"),
        (["--from", "C", "--layers", "2"], "--from"),
        (["--teacher", "T", "--layers", "2", "--model-config", "c.json"], "--scratch"),
    ],
)
def test_student_init_refuses_conflicting_options(tmp_path, capsys, flags, message):
    assert cli.main(["student", "init", "--out", str(tmp_path / "student"), *flags]) == 2
    assert message in capsys.readouterr().err


def test_student_init_prunes_and_prints_the_result(tiny_teacher, tmp_path, capsys):
    out = tmp_path / "student"
    status = cli.main(["student", "init", "--teacher", str(tiny_teacher), "--keep-layers", "0,1,3", "--out", str(out)])
    assert status == 0
    assert f"student: {out} (Gemma2ForCausalLM, 3 layers" in capsys.readouterr().out


def test_student_init_makes_a_random_student(tiny_teacher, tmp_path, capsys):
    flags = ["--scratch", "--layers", "2", "--width", "32", "--heads", "2", "--head-width", "16", "--mlp-width", "48"]
    assert cli.main(["student", "init", "--teacher", str(tiny_teacher), "--out", str(tmp_path / "s"), *flags]) == 0
    assert "Gemma2ForCausalLM, 2 layers" in capsys.readouterr().out


def test_the_commands_import_nothing_heavy():
    program = "import sys, logitcask.student.commands; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "pyarrow"} & set(found.stdout.split())
