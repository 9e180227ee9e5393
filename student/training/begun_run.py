"""A run that was begun before: whether its directory can be used, how far it is, and what a resumed run takes over."""

import shlex
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from logitcask.schemas.checked_json import convert, read_object
from logitcask.schemas.errors import ForeignOutputError
from logitcask.student.model.student_card import CARD_NAME
from logitcask.student.settings import TrainSettings
from logitcask.student.training import checkpoint_files

SETTINGS_NAME = "train.json"
RESULTS_NAME = "results.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Begun:
    """What a resumed run takes over from `train.json`."""

    snapshot: tuple[int, ...] = ()


def check_directory(settings: TrainSettings) -> None:
    """Refuses a directory that holds other files, or a run that is not to be resumed.

    Raises:
        ForeignOutputError: It cannot be used; says how far the run is, and how to continue it.
    """
    run = Path(settings.out)
    is_run = (run / SETTINGS_NAME).exists()
    if run.exists() and not is_run and any(run.iterdir()):
        raise ForeignOutputError(f"{run}: holds something that is not a training run; choose another --out")
    if is_run and not settings.resume:
        raise ForeignOutputError(
            f"{run}: already holds a training run, {_how_far(run)}; choose another --out, or continue it with\n"
            f"  {_this_command()} --resume"
        )


def as_begun(settings: TrainSettings) -> TrainSettings:
    """The settings of a resumed run: with the snapshots of its start, and a checkpoint as the student if that is gone.

    Raises:
        CorruptShardError: The run's settings are damaged, or none of its checkpoints is whole.
    """
    run = Path(settings.out)
    begun = run / SETTINGS_NAME
    if not settings.snapshot and begun.exists():
        parse = partial(convert, kind=_Begun)
        snapshot = read_object(str(begun), parse, what="the settings of a run", advice="restore the file").snapshot
        if len(snapshot) == len(settings.datasets):
            settings = replace(settings, snapshot=snapshot)
    # New adapters need the weights of their base.
    if not settings.lora_r and not (Path(settings.student) / CARD_NAME).exists():
        newest = checkpoint_files.newest_whole(run).checkpoint
        if newest is not None and (newest / CARD_NAME).exists():
            return replace(settings, student=str(newest))
    return settings


def _how_far(run: Path) -> str:
    if (run / RESULTS_NAME).exists():
        return "which is finished"
    names = checkpoint_files.names(run)
    return f"with {names[0]} as its newest checkpoint" if names else "which has no checkpoint yet"


def _this_command() -> str:
    is_program = sys.argv[0].endswith(("/logitcask", "/logitcask/__main__.py"))
    return shlex.join(["logitcask", *sys.argv[1:]]) if is_program else "the same settings and"
