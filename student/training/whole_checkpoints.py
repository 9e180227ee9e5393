"""A `transformers.Trainer` whose checkpoints are whole: written aside, sealed, renamed; checked before use."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import Trainer
from transformers.trainer_utils import rotate_checkpoints

from logitcask.schemas.errors import CorruptShardError, StorageError
from logitcask.schemas.fault_points import reach
from logitcask.student.training import checkpoint_files, resume
from logitcask.student.training.export import copy_description
from logitcask.student.training.safe_loading import loading


class WholeCheckpointsTrainer(Trainer):
    """Saves and loads checkpoints for `SoftTargetTrainer`; see `student.training.checkpoint_files`."""

    # Whether a resumed run may have another number of steps, where this changes its schedule.
    extends = False
    # The student's directory: its tokenizer and description become part of each checkpoint.
    student_directory: Path | None = None
    _unfinished: Path | None = None

    def identity(self) -> dict[str, Any]:
        """Everything that determines the steps of a run, as JSON: a resumed run must have the same."""
        raise NotImplementedError

    def length_matters(self, num_taken: int, num_steps: int) -> bool:
        """Whether a longer run would have taken its first `num_taken` steps otherwise."""
        raise NotImplementedError

    def schedule_at(self, num_taken: int, num_steps: int) -> str:
        """The learning rate and the weight of the KL after `num_taken` steps, in words."""
        raise NotImplementedError

    @property
    def run_directory(self) -> Path:
        """Directory of checkpoints and metrics."""
        assert self.args.output_dir is not None, "TrainingArguments sets a default"
        return Path(self.args.output_dir)

    def newest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint of the run; says on stderr which ones are passed over, and why.

        Raises:
            CorruptShardError: There are checkpoints, but none is whole.
        """
        choice = checkpoint_files.newest_whole(self.run_directory)
        if self.is_world_process_zero():
            for reason in choice.passed_over:
                print(f"{reason}; passed over for {choice.checkpoint}", file=sys.stderr)
        return choice.checkpoint

    def check_resumable(self, checkpoint: str | Path) -> None:
        """Refuses a checkpoint that this run cannot resume from.

        Raises:
            ConfigurationMismatchError: It has another dataset, order, batch size, loss or optimizer.
            CorruptShardError: It is incomplete or damaged.
        """
        state = checkpoint_files.read_state(checkpoint)
        resume.check(checkpoint, state, self.identity(), self.length_matters, self.schedule_at, extends=self.extends)
        if checkpoint_files.is_unsealed(state) and self.is_world_process_zero():
            print(
                f"{checkpoint}: an earlier release wrote this checkpoint without digests; whether its files are "
                "damaged cannot be checked",
                file=sys.stderr,
            )

    # Saving

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._unfinished is None else str(self._unfinished)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        run, name = Path(self._get_output_dir(trial)), f"checkpoint-{self.state.global_step}"
        unfinished = run / checkpoint_files.UNFINISHED_NAME
        if self.args.should_save:
            with _named_errors(run):
                checkpoint_files.begin(run)
        self.accelerator.wait_for_everyone()
        try:
            self._unfinished = unfinished
            with _named_errors(run):
                super()._save_checkpoint(model, trial)
        finally:
            self._unfinished = None
        self.accelerator.wait_for_everyone()
        self._name_best(run)
        if self.args.should_save:
            with _named_errors(run):
                # It names the best checkpoint, which has its final name only now.
                self.state.save_to_json(str(unfinished / name / "trainer_state.json"))
                if self.student_directory:
                    copy_description(self.student_directory, unfinished / name)
                checkpoint_files.finish(unfinished / name, run / name, self.identity(), self.state.global_step)
            rotate_checkpoints(str(run), self.args.save_total_limit, self.state.best_model_checkpoint, use_mtime=True)
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            super()._push_from_checkpoint(str(run / name))

    def _name_best(self, run: Path) -> None:
        step = self.state.best_global_step
        best = run / f"checkpoint-{step}"
        if step and (best.exists() or step == self.state.global_step):
            self.state.best_model_checkpoint = str(best)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        reach("checkpoint begun", Path(output_dir).name)
        super()._save_optimizer_and_scheduler(output_dir)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Does nothing yet: the checkpoint is pushed when it has its name."""

    # Loading

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        with loading(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with loading(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
        if self.extends and checkpoint is not None:
            resume.follow_schedule(self.lr_scheduler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with loading(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with loading(checkpoint):
            super()._load_scaler(checkpoint)

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        assert best is not None, "there is a best checkpoint"
        checkpoint_files.read_state(best)
        with loading(best):
            super()._load_best_model()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuses weights that are not the model's, where `transformers` only warns."""
        assert self.model is not None, "set by Trainer"
        weights = self.model.state_dict(keep_vars=True)
        # Tied weights are stored once.
        stored = {id(tensor) for name, tensor in weights.items() if name not in load_result.missing_keys}
        missing = [name for name in load_result.missing_keys if id(weights.get(name)) not in stored]
        if missing or load_result.unexpected_keys:
            raise CorruptShardError(
                f"the checkpoint lacks the weights {missing[:5]} of this student, and has the weights "
                f"{load_result.unexpected_keys[:5]} that are not the student's; resume with the student with which the "
                "run was started"
            )


@contextmanager
def _named_errors(run: Path) -> Iterator[None]:
    """Names the run where a library reports that a file cannot be written."""
    try:
        yield
    # RuntimeError: torch.save, on a full disk.
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise StorageError(
            f"{run}: the checkpoint cannot be written ({error}); free space or allow writing, then use --resume: the "
            "earlier checkpoints are untouched"
        ) from error
