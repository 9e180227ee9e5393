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

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import SchedulerType, TrainingArguments, get_scheduler

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


def learning_rate(args: TrainingArguments, num_taken: int, num_steps: int) -> float | None:
    """The learning rate after `num_taken` steps of a run of `num_steps`; None if it does not depend on them alone."""
    scheduler = get_scheduler(
        args.lr_scheduler_type,
        torch.optim.SGD([torch.zeros(1)], lr=args.learning_rate),
        num_warmup_steps=args.get_warmup_steps(num_steps),
        num_training_steps=num_steps,
        scheduler_specific_kwargs=_schedule_options(args),
    )
    return args.learning_rate * scheduler.lr_lambdas[0](num_taken) if isinstance(scheduler, LambdaLR) else None


def follow_schedule(scheduler: Any) -> None:
    """Sets the learning rates of the next step by the schedule, where the checkpoint has those of a shorter run."""
    if isinstance(scheduler, LambdaLR):
        rates = [
            rate * at(scheduler.last_epoch) for rate, at in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]
        for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        scheduler._last_lr = rates


def _schedule_options(args: TrainingArguments) -> dict[str, Any]:
    options = args.lr_scheduler_kwargs
    assert not isinstance(options, str), "parsed by TrainingArguments"
    return options or {}


def check(
    checkpoint: str | Path,
    state: dict[str, Any],
    identity: dict[str, Any],
    length_matters: Callable[[int, int], bool],
    schedule_at: Callable[[int, int], str],
    *,
    extends: bool,
) -> None:
    """Refuses to resume a run with other settings than it started with.

    Args:
        checkpoint: Its directory, for messages.
        state: Its `batches.json`.
        identity: The current settings.
        length_matters: (steps taken, steps in the run) → whether a longer run would have taken these steps differently.
            Only then is another `num_steps` refused.
        schedule_at: (steps taken, steps in the run) → the learning rate and the weight of the KL after these steps.
        extends: Accept another `num_steps` in any case.

    Raises:
        ConfigurationMismatchError: Names each setting that differs, or what another number of steps changes.
    """
    found = _with_current_names(state)
    now = json.loads(json.dumps(identity))  # tuples become lists, as they did in the file
    names = (now.keys() | found.keys()) - OWN_KEYS - {"num_steps"}
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
    taken, old, new = found["consumed_batches"], found.get("num_steps", 0), now["num_steps"]
    if new < taken:
        raise ConfigurationMismatchError(
            f"{checkpoint}: {taken} steps are taken already, but --steps is {new}; give at least {taken}"
        )
    if new != old and not extends and any(length_matters(taken, steps) for steps in (old, new)):
        raise ConfigurationMismatchError(
            f"{checkpoint}: the run was begun with {old} steps; with {new}, its schedule has another shape (after step "
            f"{taken}: {schedule_at(taken, new)}; as begun: {schedule_at(taken, old)}). --extend accepts this: the "
            "steps that are taken stay as they are, and the others follow the new schedule"
        )


def _with_current_names(state: dict[str, Any]) -> dict[str, Any]:
    """The state with option values that have been renamed since it was written."""
    if "loss" in state:
        state["loss"]["tail"] = current_tail(state["loss"]["tail"])
    return state
