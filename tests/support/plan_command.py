"""`logitcask plan` for a job of 2 trillion tokens."""

import json

import pytest

from logitcask.schemas import cli

WORDS = ["plan", "--teacher", "google/gemma-2-27b", "--tokens", "2e12"]


def plan(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    """The plan as JSON, with further options."""
    assert cli.main([*WORDS, *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)
