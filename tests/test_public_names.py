"""`import logitcask` is cheap, and each of its public names is typed, documented and found."""

import ast
import inspect
import subprocess
import sys

import pytest
from repository import ROOT

import logitcask

NAMES = sorted(logitcask._MODULE_OF)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_found_and_documented(name):
    value = getattr(logitcask, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)
    first_words = [line.strip().split("  ")[0] for line in (logitcask.__doc__ or "").splitlines()]
    assert name in [word for words in first_words for word in words.split(", ")]


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "logitcask/__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert typed == logitcask._MODULE_OF


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = logitcask.Nothing
    assert set(NAMES) <= set(dir(logitcask))


def test_importing_the_package_imports_nothing_heavy():
    program = "import sys, logitcask; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pyarrow", "fsspec", "apache_beam", "tyro"} & set(done.stdout.split())


def test_examples_use_public_names_only():
    for path in (ROOT / "examples").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("logitcask"):
                assert node.module == "logitcask", path
