"""What a checkpoint says of the run it belongs to, and which checkpoints are whole.

`batches.json` is written last, so a checkpoint without it was cut short and is passed over. It counts *consumed*
global batches, not what loaders had read ahead, and names all that decides what the next steps will be: the snapshots,
the order of their windows, the loss and its weight.
"""

import json
from pathlib import Path
from typing import Any

from schemas.errors import ConfigurationMismatchError, CorruptShardError

STATE_NAME = "batches.json"


def write(checkpoint: Path, identity: dict[str, Any], consumed_batches: int) -> None:
    """Marks a checkpoint as whole.

    Args:
        checkpoint: Its directory.
        identity: Settings that may not change, by name; JSON.
        consumed_batches: Global batches whose step has been taken.
    """
    state = {**identity, "consumed_batches": consumed_batches}
    (checkpoint / STATE_NAME).write_text(json.dumps(state, indent=1) + "\n")


def last_checkpoint(run: str | Path) -> str | None:
    """The newest whole checkpoint of a run's directory, or None."""
    whole = [path.parent for path in Path(run).glob(f"checkpoint-*/{STATE_NAME}")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def check(checkpoint: str | Path, identity: dict[str, Any]) -> None:
    """Refuses to continue a run with other settings than it began with.

    Raises:
        ConfigurationMismatchError: Names each setting that differs.
        CorruptShardError: The checkpoint is not whole.
    """
    path = Path(checkpoint) / STATE_NAME
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CorruptShardError(f"{path}: the checkpoint is not whole ({error}); resume from an earlier one") from error
    now = json.loads(json.dumps(identity))  # tuples become lists, as they did in the file
    differing = [
        f"{name} (was {found.get(name)}, now {now.get(name)})"
        for name in sorted(now.keys() | found.keys() - {"consumed_batches"})
        if found.get(name) != now.get(name)
    ]
    if differing:
        raise ConfigurationMismatchError(
            f"{path.parent}: the run was begun with other settings: {', '.join(differing)}; "
            "resume with those, or start a run in another directory"
        )
