"""What a checkpoint records about its run, and whether a run may resume from it.

`batches.json` counts *consumed* global batches, not those that loaders have read ahead, and records everything that
determines the next steps: the snapshots, the order of their windows, the loss and its weight, the optimizer and its
learning rate. `Trainer` restores the optimizer's settings together with its state, so a learning rate given on resuming
would be recorded but not used.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import SchedulerType, TrainingArguments

from logitcask.schemas.errors import ConfigurationMismatchError
from logitcask.student.settings import current_tail
from logitcask.student.training.checkpoint_files import OWN_KEYS

# The fields of `TrainingArguments` that are restored with the optimizer's state.
_RESTORED = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
# After the warm-up, these do not depend on the length of the run.
_ENDLESS_SCHEDULES = {SchedulerType.CONSTANT, SchedulerType.CONSTANT_WITH_WARMUP, SchedulerType.INVERSE_SQRT}


def optimizer_settings(args: TrainingArguments) -> dict[str, Any]:
    """Settings of the optimizer and its learning rate schedule, as JSON."""
    return {
        **{name: getattr(args, name) for name in _RESTORED},
        "lr_scheduler_type": SchedulerType(args.lr_scheduler_type).value,
        "lr_scheduler_kwargs": _schedule_options(args),
        "warmup_steps": args.get_warmup_steps(args.max_steps),
    }


def learning_rates_depend_on_length(args: TrainingArguments, num_taken: int, num_steps: int) -> bool:
    """Whether a longer run would have had other learning rates in the first `num_taken` of its `num_steps` steps."""
    schedule = SchedulerType(args.lr_scheduler_type)
    if schedule is SchedulerType.WARMUP_STABLE_DECAY:  # depends on the length only once it decays
        return num_taken > num_steps - _schedule_options(args).get("num_decay_steps", 0)
    return schedule not in _ENDLESS_SCHEDULES


def _schedule_options(args: TrainingArguments) -> dict[str, Any]:
    options = args.lr_scheduler_kwargs
    assert not isinstance(options, str), "parsed by TrainingArguments"
    return options or {}


def check(
    checkpoint: str | Path,
    state: dict[str, Any],
    identity: dict[str, Any],
    length_matters: Callable[[int, int], bool],
) -> None:
    """Refuses to resume a run with other settings than it started with.

    Args:
        checkpoint: Its directory, for messages.
        state: Its `batches.json`.
        identity: The current settings.
        length_matters: (steps taken, steps in the run) → whether a longer run would have taken these steps differently.
            Only then is another `num_steps` refused.

    Raises:
        ConfigurationMismatchError: Names each setting that differs.
    """
    found = _with_current_names(state)
    now = json.loads(json.dumps(identity))  # tuples become lists, as they did in the file
    names = (now.keys() | found.keys()) - OWN_KEYS
    if not any(length_matters(found["consumed_batches"], one.get("num_steps", 0)) for one in (found, now)):
        names -= {"num_steps"}
    differing = [
        f"{name} (was {found.get(name)}, now {now.get(name)})"
        for name in sorted(names)
        if found.get(name) != now.get(name)
    ]
    if differing:
        raise ConfigurationMismatchError(
            f"{checkpoint}: the run was started with other settings: {', '.join(differing)}; "
            "resume with the old ones, or start a run in another directory"
        )


def _with_current_names(state: dict[str, Any]) -> dict[str, Any]:
    """The state with option values that have been renamed since it was written."""
    if "loss" in state:
        state["loss"]["tail"] = current_tail(state["loss"]["tail"])
    return state
