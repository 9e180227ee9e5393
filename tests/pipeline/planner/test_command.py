"""`logitcask plan`: its options, its imports, and the documentation of its JSON."""

import re

import pytest
from json_paths import leaves
from plan_command import WORDS, plan
from repository import ROOT

from logitcask.schemas import cli

PAGE = ROOT / "docs/plan-json.md"


def test_the_documentation_lists_exactly_the_printed_keys(capsys, tmp_path, finished_dataset):
    found = leaves(plan(capsys, "--against", finished_dataset))
    patterns = set(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE))
    matched = {
        pattern: {leaf for leaf in found if re.fullmatch(re.sub(r"<\w+>", r"\\w+", re.escape(pattern)), leaf)}
        for pattern in patterns
    }
    assert not [pattern for pattern, leaves_ in matched.items() if not leaves_]
    assert found == set().union(*matched.values())


@pytest.mark.parametrize(
    "words", [["--mfu", "1.5"], ["--gpus", "0"], ["--months", "-1"], ["--parameters", "7e9"], ["--tokens", "-3"]]
)
def test_invalid_settings_are_refused(words, capsys):
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
