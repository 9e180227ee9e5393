"""What a checkpoint says of the run it belongs to, and which checkpoints are whole.

`batches.json` is written last, so a checkpoint without it was cut short and is passed over. It counts *consumed*
global batches, not what loaders had read ahead, and names all that decides what the next steps will be: the snapshots,
the order of their windows, the loss and its weight, the optimiser and its learning rate. `Trainer` restores the
optimiser's settings with its state: a learning rate given on resuming would be written down, and not used.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import SchedulerType, TrainingArguments

from logitcask.schemas.errors import ConfigurationMismatchError, CorruptShardError

STATE_NAME = "batches.json"

# Of `TrainingArguments`: what the optimiser's state brings with it.
_RESTORED = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
# After a warm-up, none of these looks at the end of the run.
_ENDLESS_SCHEDULES = {SchedulerType.CONSTANT, SchedulerType.CONSTANT_WITH_WARMUP, SchedulerType.INVERSE_SQRT}


def optimizer_settings(args: TrainingArguments) -> dict[str, Any]:
    """Settings of the optimiser and the course of its learning rate, as JSON."""
    return {
        **{name: getattr(args, name) for name in _RESTORED},
        "lr_scheduler_type": SchedulerType(args.lr_scheduler_type).value,
        "lr_scheduler_kwargs": _schedule_options(args),
        "warmup_steps": args.get_warmup_steps(args.max_steps),
    }


def learning_rates_depend_on_length(args: TrainingArguments, num_taken: int, num_steps: int) -> bool:
    """Whether the first `num_taken` steps of a run of `num_steps` have learning rates that a longer run would not."""
    schedule = SchedulerType(args.lr_scheduler_type)
    if schedule is SchedulerType.WARMUP_STABLE_DECAY:  # goes on as it likes until it falls
        return num_taken > num_steps - _schedule_options(args).get("num_decay_steps", 0)
    return schedule not in _ENDLESS_SCHEDULES


def _schedule_options(args: TrainingArguments) -> dict[str, Any]:
    options = args.lr_scheduler_kwargs
    assert not isinstance(options, str), "parsed by TrainingArguments"
    return options or {}


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


def check(checkpoint: str | Path, identity: dict[str, Any], length_matters: Callable[[int, int], bool]) -> None:
    """Refuses to continue a run with other settings than it began with.

    Args:
        checkpoint: Its directory.
        identity: The settings now.
        length_matters: Whether so many steps would have been others, had the run not had so many steps in all. Another
            `num_steps` is refused only then.

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
    names = (now.keys() | found.keys()) - {"consumed_batches"}
    if not any(length_matters(found["consumed_batches"], one.get("num_steps", 0)) for one in (found, now)):
        names -= {"num_steps"}
    differing = [
        f"{name} (was {found.get(name)}, now {now.get(name)})"
        for name in sorted(names)
        if found.get(name) != now.get(name)
    ]
    if differing:
        raise ConfigurationMismatchError(
            f"{path.parent}: the run was begun with other settings: {', '.join(differing)}; "
            "resume with those, or start a run in another directory"
        )
