"""The arrows of the design: pipeline → teacher → schemas, student → schemas."""

import ast
import subprocess
import sys
from pathlib import Path

from repository import ROOT

# Who reads shards as they were written: what checks, copies and makes them, and what applies a snapshot's rules.
READ_SHARDS_WITHOUT_RULES = {
    "pipeline/annotation/annotate_unit.py",
    "pipeline/annotation/recompute.py",
    "pipeline/finalization/finalize.py",
    "pipeline/units/commit.py",
    "pipeline/units/finished.py",
    "schemas/dataset/shard_view.py",
    "schemas/maintenance/compact.py",
    "schemas/maintenance/merge.py",
    "schemas/maintenance/rewrite_shard.py",
    "schemas/maintenance/select_forget.py",
    "schemas/maintenance/verify.py",
}


def test_whoever_reads_a_snapshot_s_targets_is_shown_what_it_selects():
    """`ShardReader` knows no rules; everybody else opens shards with `shard_view.open_shard`."""
    found = {
        str(path.relative_to(ROOT))
        for package in ("pipeline", "teacher", "student", "schemas")
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
    assert "9 kept, 0 broken" in done.stdout
