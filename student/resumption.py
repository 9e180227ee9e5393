"""What a checkpoint says of the data it has consumed, and which checkpoints are whole.

`batches.json` is written last, so a checkpoint without it was cut short and is passed over. It counts *consumed*
global batches, not what loaders had read ahead.
"""

import json
from pathlib import Path
from typing import Any

from schemas.dataset import Snapshot
from schemas.errors import ConfigurationMismatchError, CorruptShardError
from student.batches import BatchPlan

STATE_NAME = "batches.json"


def write(checkpoint: Path, plan: BatchPlan, snapshot: Snapshot, consumed_batches: int) -> None:
    """Marks a checkpoint as whole."""
    state = {**_identity(plan, snapshot), "consumed_batches": consumed_batches}
    (checkpoint / STATE_NAME).write_text(json.dumps(state, indent=1) + "\n")


def last_checkpoint(run: str | Path) -> str | None:
    """The newest whole checkpoint of a run's directory, or None."""
    whole = [path.parent for path in Path(run).glob(f"checkpoint-*/{STATE_NAME}")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def check(checkpoint: str | Path, plan: BatchPlan, snapshot: Snapshot) -> None:
    """Refuses to continue a run on other batches than it began with.

    Raises:
        ConfigurationMismatchError: Names each setting that differs.
        CorruptShardError: The checkpoint is not whole.
    """
    path = Path(checkpoint) / STATE_NAME
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CorruptShardError(f"{path}: the checkpoint is not whole ({error}); resume from an earlier one") from error
    differing = [
        f"{name} (was {found.get(name)}, now {value})"
        for name, value in _identity(plan, snapshot).items()
        if found.get(name) != value
    ]
    if differing:
        raise ConfigurationMismatchError(
            f"{path.parent}: the run was begun with other settings: {', '.join(differing)}; "
            "resume with those, or start a run in another directory"
        )


def _identity(plan: BatchPlan, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "snapshot": snapshot.number,
        "shards_digest": snapshot.shards_digest,
        "num_windows": plan.num_windows,
        "batch_size_windows": plan.batch_size_windows,
        "seed": plan.seed,
    }
