"""Callbacks that report the progress of a run: a metrics file of JSON lines, TensorBoard, a progress bar on stderr."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback

from logitcask.schemas.errors import UsageError
from logitcask.schemas.terminal.console import message_console


class MetricsFile(TrainerCallback):
    """Appends each log line of the run to a file; a resumed run drops the lines of steps that it repeats."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keeps the lines up to the step from which training starts."""
        if state.is_world_process_zero:
            lines = self._path.read_text().splitlines() if self._path.exists() and state.global_step else []
            kept = [line for line in lines if 0 <= _step_of(line) <= state.global_step]
            self._path.write_text("".join(f"{line}\n" for line in kept))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Writes one line."""
        if state.is_world_process_zero:
            with self._path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def _step_of(line: str) -> int:
    """The step of a line; -1 for a line that a kill cut short."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return -1


def tensorboard_callback(directory: Path) -> TrainerCallback:
    """A callback that writes the metrics for TensorBoard into a directory.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs the package tensorboard: pip install 'logitcask[tensorboard]'")
    from torch.utils.tensorboard import SummaryWriter

    return TensorBoardCallback(SummaryWriter(log_dir=str(directory)))


class ProgressBar(TrainerCallback):
    """Steps, loss, tokens per second and time left."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Shows the bar."""
        if state.is_world_process_zero:
            bar = self._bar = Progress(
                TextColumn("train"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps"),
                TextColumn("{task.fields[status]}", markup=False),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=message_console(),
            )
            self._task = bar.add_task("train", total=state.max_steps, completed=state.global_step, status="")
            bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Moves the bar."""
        if self._bar:
            self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Shows the latest loss and speed."""
        if self._bar and logs and "tokens_per_second" in logs:
            status = f"loss {logs['loss']:.4f}  {logs['tokens_per_second']:,.0f} tokens/s"
            self._bar.update(self._task, status=status)

    def close(self) -> None:
        """Removes the bar from the terminal; also called after an error."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leaves the finished bar visible."""
        self.close()
