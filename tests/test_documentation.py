"""README and the other pages agree with the code: linked files, options, commands and the example exist."""

import re
import shlex

import pytest
from repository import ROOT

from logitcask.schemas.cli import option_fields, registered_commands

PAGES = ["README.md", "FORMAT.md", "CONTRIBUTING.md"]
COMMAND_LINE = re.compile(r"^(?:\$ )?(logitcask .+)$", re.MULTILINE)


def code_blocks(page: str, language: str = "") -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return [block for found, block in blocks if found == language]


def options_of(words: list[str]) -> set[str]:
    """The options of the command that `words` call."""
    commands = registered_commands()
    name = next(name for name in (" ".join(words[:2]), words[0]) if name in commands)
    names = {option.replace("_", "-") for option in option_fields(commands[name].load())}
    return {f"--{name}" for name in names} | {f"--no-{name}" for name in names} | {"--config", "--help"}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_names_an_existing_file(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_every_command_line_uses_existing_options(page):
    for line in (line for block in code_blocks(page) for line in COMMAND_LINE.findall(block)):
        words = shlex.split(line.replace("[", "").replace("]", ""))[1:]
        unknown = {word for word in words if word.startswith("--")} - options_of(words)
        assert not unknown, line


def test_the_readme_shows_the_tested_example():
    (block,) = code_blocks("README.md", "python")
    example = (ROOT / "examples/train_student.py").read_text()
    for statement in block.strip().split("\n\n"):
        for paragraph in statement.split("\ntrainer.train()"):
            assert paragraph.strip() in example


def test_the_tree_in_the_readme_names_existing_files():
    (tree,) = [block for block in code_blocks("README.md") if "schemas/" in block]
    for line in tree.strip().splitlines():
        assert (ROOT / line.split()[0]).exists(), line


def test_the_readme_names_every_command():
    readme = (ROOT / "README.md").read_text()
    for name in registered_commands():
        assert f"logitcask {name} " in readme
