"""The plan as text."""

from plan_command import WORDS
from repository import ROOT

from logitcask.schemas import cli


def test_the_text_describes_the_chosen_job(capsys):
    assert cli.main([*WORDS, "--scheme", "topk", "--k", "64"]) == 0
    shown = capsys.readouterr().out
    for expected in ("2 T tokens", "62,912 GPU hours", "the 64 largest, and the exact tail", "caching is cheaper from"):
        assert expected in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_the_readme_shows_the_printed_text(capsys):
    readme = (ROOT / "README.md").read_text()
    command = "logitcask plan --teacher google/gemma-2-27b --tokens 2e12 --scheme adaptive"
    shown = readme.split(f"$ {command}\n")[1].split("```")[0]
    assert cli.main(command.split()[1:]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == shown.splitlines()
