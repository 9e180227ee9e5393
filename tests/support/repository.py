"""Where the repository's files are: the root, and shards that earlier releases wrote."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
