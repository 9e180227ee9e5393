"""The arrows of the design: pipeline → teacher → schemas, student → schemas."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


# Who reads shards as they were written: what checks, copies and makes them, and what applies a snapshot's rules.
READ_SHARDS_WITHOUT_RULES = {
    "pipeline/annotating.py",
    "pipeline/committing.py",
    "pipeline/finalizing.py",
    "pipeline/recomputing.py",
    "schemas/compaction.py",
    "schemas/derivation.py",
    "schemas/merging.py",
    "schemas/rewriting.py",
    "schemas/shard_copies.py",
    "schemas/snapshot_shard.py",
    "schemas/verification.py",
}


def test_whoever_reads_a_snapshot_s_targets_is_shown_what_it_selects():
    """`ShardReader` knows no rules; everybody else opens shards with `snapshot_shard.open_shard`."""
    found = {
        str(path.relative_to(ROOT))
        for package in ("pipeline", "teacher", "student", "schemas")
        for path in (ROOT / package).rglob("*.py")
        if any(
            isinstance(node, ast.ImportFrom)
            and node.module == "schemas.reader"
            and any(name.name == "ShardReader" for name in node.names)
            for node in ast.walk(ast.parse(path.read_text()))
        )
    }
    assert found <= READ_SHARDS_WITHOUT_RULES


def test_no_package_imports_against_the_arrows():
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 kept, 0 broken" in done.stdout
