"""What `select` and `forget` say they did."""

from typing import Any

from schemas import storage
from schemas.dataset import Snapshot
from schemas.derivation import Derivation

_COUNTS = ("documents", "windows", "positions", "targets")


def describe(derivation: Derivation) -> dict[str, Any]:
    """The counts of the old snapshot and the new one, as JSON."""
    base, snapshot = derivation.base, derivation.snapshot
    return {
        "dataset": storage.redact(snapshot.url),
        "base": base.number,
        "snapshot": snapshot.number,
        "before": _counts(base),
        "after": _counts(snapshot),
        "removed": snapshot.removed,
    }


def _counts(snapshot: Snapshot) -> dict[str, int]:
    total = snapshot.total()
    values = (total.num_documents, total.num_windows, total.num_positions, total.statistics.targets)
    return dict(zip(_COUNTS, values, strict=True))


def text(report: dict[str, Any]) -> str:
    """The same for people."""
    if report["base"] == report["snapshot"]:
        return f"snapshot {report['snapshot']} has nothing else already: nothing to do"
    lines = [f"snapshot {report['snapshot']}, made from snapshot {report['base']}, which stays as it is"]
    lines += [f"{name:<10} {report['before'][name]:,} → {report['after'][name]:,}" for name in _COUNTS]
    return "\n".join(lines)
