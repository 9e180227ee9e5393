"""The commands of docs/clusters.md are valid."""

import re
import shlex

import pytest
from repository import ROOT

from logitcask.pipeline.commands import Annotate
from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.runners.settings import SUPPORTED_RUNNERS
from logitcask.schemas.cli import parse_command

PAGE = (ROOT / "docs" / "clusters.md").read_text()
COMMANDS = [shlex.split(line)[2:] for line in re.findall(r"^logitcask annotate .+$", PAGE, re.MULTILINE)]


@pytest.mark.parametrize("words", COMMANDS, ids=[str(number) for number in range(len(COMMANDS))])
def test_a_command_has_valid_options(words: list[str]) -> None:
    config = parse_command(Annotate, "annotate", words)
    assert isinstance(config, AnnotateConfig)
    config.check()
    config.runner_settings()


def test_every_runner_has_a_command() -> None:
    named = [words[words.index("--runner") + 1] if "--runner" in words else "local" for words in COMMANDS]
    assert sorted(named) == sorted(SUPPORTED_RUNNERS)
