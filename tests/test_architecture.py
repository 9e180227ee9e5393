"""The arrows of the design: pipeline → teacher → schemas, student → schemas."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

PACKAGES = ("pipeline", "teacher", "student", "schemas")
# An import by a bare name, at the start of a line or of a statement in a string of code.
_BARE = rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)*"
BARE_IMPORT = re.compile(rf"""(?:^|[;"']|\\n)\s*(?:from {_BARE} import|import {_BARE})\b""", re.MULTILINE)
# Modules that read whole shards: those that check, copy or make them, the one that applies a snapshot's rules, and the
# one that knows which documents a dataset has ever had.
READ_SHARDS_WITHOUT_RULES = {
    "pipeline/annotation/annotate_unit.py",
    "pipeline/annotation/recompute.py",
    "pipeline/finalization/finalize.py",
    "schemas/dataset/commit.py",
    "pipeline/units/finished.py",
    "pipeline/units/known_documents.py",
    "schemas/dataset/shard_view.py",
    "schemas/maintenance/compact.py",
    "schemas/maintenance/merge.py",
    "schemas/maintenance/rewrite_shard.py",
    "schemas/maintenance/select_forget.py",
    "schemas/maintenance/verify_shards.py",
}


def test_readers_of_a_snapshot_get_only_what_it_selects():
    """`ShardReader` knows no rules; all other modules open shards with `shard_view.open_shard`."""
    found = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if any(
            isinstance(node, ast.ImportFrom)
            and node.module == "logitcask.schemas.format.reader"
            and any(name.name == "ShardReader" for name in node.names)
            for node in ast.walk(ast.parse(path.read_text()))
        )
    }
    assert found <= READ_SHARDS_WITHOUT_RULES


def test_no_package_imports_against_the_arrows():
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 kept, 0 broken" in done.stdout


def test_packages_are_imported_by_their_full_names():
    """The bare names `schemas`, `teacher`, … would clash with a user's own modules."""
    files = [file for folder in (*PACKAGES, "tests", "bench", "examples") for file in (ROOT / folder).rglob("*.py")]
    found = {str(file.relative_to(ROOT)) for file in files if BARE_IMPORT.search(file.read_text())}
    assert found == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_an_import_by_a_bare_name_is_found(package):
    assert BARE_IMPORT.search(f"import sys; import {package}")
    assert BARE_IMPORT.search(f"program = 'import {package}.a as a'")
    assert BARE_IMPORT.search(f"    from {package}.a.b import c\n")
    assert not BARE_IMPORT.search(f"from logitcask.{package} import a\nfrom logitcask import {package}\n")
