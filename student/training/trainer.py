"""`SoftTargetTrainer`: a `transformers.Trainer` that learns from stored targets.

`transformers` provides `TrainingArguments`, precision, gradient accumulation, data parallelism, schedules and
checkpoints. This module adds the loss, its denominators, the order of the batches, the evaluation, and the refusals:

* The loss is a sum over positions divided once by the number of positions in the *global* batch: KL by rows with a
  target, cross-entropy by rows with a label. One step of four windows equals four accumulated micro-batches of one, to
  rounding.
* Global batch g depends only on the datasets, the seed and the batch size, so a resumed run sees the same batches.
* A loss or gradient that is not finite stops the run before the step, with a message that names the windows.
"""

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, ProgressCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from logitcask.schemas.errors import CorruptShardError, NonFiniteError, UsageError
from logitcask.schemas.format.metadata import TokenizerInfo
from logitcask.student.alpha_schedule import AlphaSchedule
from logitcask.student.data.collator import Batch, collate, count_positions
from logitcask.student.data.dataset import EpochWindows
from logitcask.student.data.global_batches import RankBatches
from logitcask.student.data.mixture import WindowDataset, datasets_of
from logitcask.student.evaluation.evaluate import Evaluation, FullTeacher, evaluate
from logitcask.student.losses.fused_loss import LinearLoss
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.model import adapters
from logitcask.student.model.exact_vocabulary import num_surplus_ids, save_student
from logitcask.student.model.expert_balance import expert_balance
from logitcask.student.model.projection import output_projection
from logitcask.student.model.student_card import StudentCard
from logitcask.student.model.trial import try_student
from logitcask.student.model.vocabulary_check import check_tokenizer, check_vocabulary_size
from logitcask.student.training import resume
from logitcask.student.training.arguments import check_arguments, global_batches
from logitcask.student.training.batch_loss import run_as_forward, soft_target_loss
from logitcask.student.training.best_metric import settle_best_metric
from logitcask.student.training.callbacks import MetricsFile, ProgressBar
from logitcask.student.training.log_means import LogSums
from logitcask.student.training.whole_checkpoints import WholeCheckpointsTrainer


class SoftTargetTrainer(WholeCheckpointsTrainer):
    """Trains a causal language model on a `SoftTargetDataset`, or on several by weight (`MixedDataset`).

    The loss is `alpha` · KL(teacher ‖ student) + (1 − `alpha`) · cross-entropy, each a mean over its positions. The
    size of a global batch is `per_device_train_batch_size` × `gradient_accumulation_steps` × processes, in windows.
    `data_seed` (else `seed`) orders the windows. Metrics go to `output_dir/metrics.jsonl`, one JSON object per line.

    Args:
        model: The student; a `PeftModel` trains its adapters.
        args: As for any `Trainer`; without `max_steps`, `num_train_epochs` sets it.
        train_dataset: Windows to learn from.
        eval_dataset: Held-out windows, for `evaluate` and `eval_strategy`.
        alpha: Weight of the KL, 0 to 1, constant or by step.
        loss: The loss used as the KL; None: the forward KL with the other bucket.
        tokenizer: What the student's ids mean; None: read from the student's directory (`logitcask.json`).
        eval_windows: Number of held-out windows to evaluate on; None: all.
        shuffle_windows: None: shuffle an epoch as a whole; else by blocks, then within buffers of this size
            (`WindowOrder`).
        **options: Passed on to `Trainer` (callbacks, optimizers, ...).

    Raises:
        FingerprintMismatchError: Student and shards have different vocabularies or tokenizers.
        VocabularyError: The student predicts fewer ids than the teacher.
        UsageError: A batch that cannot be divided, an alpha outside 0 to 1, an unsupported model or argument, or a loss
            that needs something the shards do not hold.
    """

    live_teacher: FullTeacher | None = None
    # `compute_loss` itself divides by the positions of the whole accumulated batch.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        train_dataset: WindowDataset,
        eval_dataset: WindowDataset | None = None,
        alpha: float | AlphaSchedule = 1.0,
        loss: LossSettings | None = None,
        tokenizer: TokenizerInfo | None = None,
        eval_windows: int | None = None,
        shuffle_windows: int | None = None,
        **options: Any,
    ) -> None:
        check_arguments(args)
        if adapters.is_adapted(model):
            adapters.check_adapters(model)
            args.label_names = args.label_names or ["labels"]  # `Trainer` cannot see them through a `PeftModel`
        self.loss_settings = loss or LossSettings()
        settle_best_metric(args, self.metric)
        tokenizer = tokenizer or StudentCard.read(Path(model.name_or_path or "")).tokenizer
        check_tokenizer(tokenizer, train_dataset.metadata)
        check_vocabulary_size(output_projection(model).weight.shape[0], train_dataset.metadata)
        self.alpha_schedule = alpha if isinstance(alpha, AlphaSchedule) else AlphaSchedule(alpha=alpha)
        self.eval_windows = eval_windows
        self._check_shards(train_dataset)
        self.global_batches = global_batches(args, train_dataset, shuffle_windows)
        args.max_steps = self.global_batches.num_batches
        super().__init__(model, args, train_dataset=train_dataset, eval_dataset=eval_dataset, **options)  # pyright: ignore[reportArgumentType]
        try_student(model, max(one.snapshot.identity.window_tokens or 0 for one in datasets_of(train_dataset)))
        self._windows = train_dataset
        self._check_surplus_ids(model)
        self._balance = expert_balance(model)
        self._adapters = adapters.adapter_identity(model) if adapters.is_adapted(model) else {}
        self._sums = LogSums(args.device)
        self._step_windows: list[int] = []
        self._replace_callbacks()

    def _check_surplus_ids(self, model: PreTrainedModel) -> None:
        surplus, expected = num_surplus_ids(model, self._windows.vocab_size), self._windows.vocab_size
        if surplus and adapters.is_adapted(model):
            raise UsageError(
                f"the student predicts {surplus} ids more than the teacher's {expected}, and adapters leave its own "
                "weights as they are; cut the student first (resize_token_embeddings), or train all weights"
            )
        if surplus and self.is_world_process_zero():
            print(
                f"the student predicts {surplus} ids more than the teacher's {expected}: they take no part in "
                "training, and the saved student does not have them",
                file=sys.stderr,
            )

    def _check_shards(self, windows: WindowDataset) -> None:
        """Refuses shards that lack what the loss needs."""
        for dataset in datasets_of(windows):
            self.loss_settings.check_shards(dataset[0].targets)

    def _replace_callbacks(self) -> None:
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        if not self.args.disable_tqdm:
            self.add_callback(ProgressBar())
        self.add_callback(MetricsFile(self.run_directory / "metrics.jsonl"))

    @property
    def alpha(self) -> float:
        """Weight of the KL at the current step."""
        return self.alpha_schedule.at(self.state.global_step, self.global_batches.num_batches)

    @property
    def metric(self) -> str:
        """The name of the mean loss in logs."""
        return self.loss_settings.metric

    # Batches

    def get_train_dataloader(self) -> DataLoader:
        """This rank's micro-batches of the whole run, as one epoch of the `Trainer`."""
        return DataLoader(
            EpochWindows(self._windows),
            batch_sampler=RankBatches(self.global_batches, self.args.process_index),
            collate_fn=collate,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor]:
        """The micro-batches of one step, and the global batch's numbers of targets and labels, [2]."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        self._step_windows = [index for batch in batches for index in batch["window_indices"].tolist()]
        counts = count_positions(batches).to(device)
        if self.args.world_size > 1:
            torch.distributed.all_reduce(counts)
        return batches, counts

    # Loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """This micro-batch's part of the loss of the global batch; with `return_outputs` also the `LinearLoss`."""
        counts = (
            count_positions([inputs]).to(inputs["labels"].device) if num_items_in_batch is None else num_items_in_batch
        )
        # Data parallelism averages gradients over the processes, but the denominators are already global.
        weights = self.args.world_size / counts.clamp(min=1).double()
        student = self.accelerator.unwrap_model(model)
        with self.accelerator.autocast():
            loss, kl, cross_entropy = run_as_forward(
                model,
                student,
                lambda: _tensors(
                    self._balanced_loss(student, inputs, self.alpha * weights[0], (1 - self.alpha) * weights[1])
                ),
            )
        result = LinearLoss(loss=loss, kl=kl, cross_entropy=cross_entropy)
        self._sums.add(result, inputs)
        return (result.loss, result) if return_outputs else result.loss

    def _balanced_loss(
        self, student: PreTrainedModel, batch: Batch, kl_weight: Tensor, cross_entropy_weight: Tensor
    ) -> LinearLoss:
        """The `batch_loss`, and in a mixture of experts the auxiliary loss, a mean over the step's micro-batches."""
        if self._balance is None:
            return self.batch_loss(student, batch, kl_weight, cross_entropy_weight)
        with self._balance.recording() as recorded:
            result = self.batch_loss(student, batch, kl_weight, cross_entropy_weight)
        auxiliary = self._balance.loss(recorded) / self.args.gradient_accumulation_steps
        return replace(result, loss=result.loss + auxiliary)

    def batch_loss(
        self, student: PreTrainedModel, batch: Batch, kl_weight: Tensor, cross_entropy_weight: Tensor
    ) -> LinearLoss:
        """kl_weight · Σ KL + cross_entropy_weight · Σ cross-entropy over a micro-batch."""
        return soft_target_loss(
            student,
            batch,
            vocab_size=self._windows.vocab_size,
            kl_weight=kl_weight,
            cross_entropy_weight=cross_entropy_weight,
            settings=self.loss_settings,
        )

    def training_step(self, model: torch.nn.Module, inputs: Batch, num_items_in_batch: Tensor | None = None) -> Tensor:
        """Forward and backward of one micro-batch.

        Raises:
            NonFiniteError: The loss is not finite.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._require_finite("loss", loss, inputs["window_indices"])
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        grad_norm = super()._get_grad_norm(model, grad_norm)
        # The gradient sums over the micro-batches of the step: any of their windows may be the cause.
        self._require_finite("gradient norm", grad_norm, self._step_windows)
        return grad_norm

    def _require_finite(self, what: str, value: Tensor | float, windows: Iterable[Any]) -> None:
        if math.isfinite(float(value)):
            return
        named = ", ".join(self._windows.describe(int(index)) for index in windows)
        rank, num_ranks = self.args.process_index, self.args.world_size
        process = f"the windows of process {rank} of {num_ranks}: " if num_ranks > 1 else ""
        last = self._last_good_checkpoint()
        checkpoint = f"the last checkpoint is good ({last})" if last else "there is no checkpoint"
        wider = "resume in float32, or " if last and (self.args.bf16 or self.args.fp16) else ""
        raise NonFiniteError(
            f"step {self.state.global_step + 1}: the {what} is {float(value)} on {process}{named}; no step was taken "
            f"and {checkpoint}; {wider}start a run in another directory (--out) with a lower learning rate, which a "
            "resumed run cannot change"
        )

    def _last_good_checkpoint(self) -> Path | None:
        try:
            return self.newest_checkpoint()
        except CorruptShardError:
            return None

    # Evaluation and logs

    def evaluate_on(self, dataset: WindowDataset, *, divergence: bool = False) -> Evaluation:
        """Evaluates the current student on at most `eval_windows` windows; with `divergence` also as it is trained."""
        student = self.accelerator.unwrap_model(self.model)
        return evaluate(
            student,
            dataset,
            num_windows=self.eval_windows,
            batch_windows=self.args.per_device_eval_batch_size,
            rank=self.args.process_index,
            num_ranks=self.args.world_size,
            precision=self.accelerator.autocast(),
            teacher=self.live_teacher,
            divergence=partial(self._row_divergence, student) if divergence else None,
            # Hooks of the forward pass gather sharded weights.
            run_forward=partial(run_as_forward, student, student),
        )

    def _row_divergence(self, student: PreTrainedModel, batch: Batch) -> Tensor:
        one = torch.ones((), dtype=torch.float64, device=batch["labels"].device)
        return self.batch_loss(student, batch, one, 0 * one).kl

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Divergences, losses and agreement on held-out windows, logged under `metric_key_prefix`.

        `eval_loss` is the loss that training minimizes, at the current alpha; a metric that this dataset does not
        define is None.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(dataset, WindowDataset):
            raise UsageError("evaluation needs a dataset: pass eval_dataset=SoftTargetDataset(..., 'held-out')")
        evaluation = self.evaluate_on(dataset, divergence=True)
        parts = [(self.alpha, evaluation.divergence_nats), (1 - self.alpha, evaluation.loss_nats)]
        values = {
            "loss": sum(weight * value for weight, value in parts if weight),
            self.metric: evaluation.divergence_nats,
            **evaluation.to_json(),
        }
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.log(dict(metrics))  # type: ignore[arg-type]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics  # type: ignore[return-value]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means since the last line: KL, cross-entropy, tokens and tokens per second."""
        if "loss" in logs:
            logs = {**logs, **self._take_means()}
        super().log(logs, start_time)

    def _take_means(self) -> dict[str, float]:
        means = self._sums.take(self.args.world_size)
        logs = {self.metric: means.kl_nats}
        if self.alpha_schedule.uses_cross_entropy:
            logs["cross_entropy_nats"] = means.cross_entropy_nats
        if self.alpha_schedule.shape != "constant":
            # The log line follows the step: it shows the weight of that step, not of the next.
            logs["alpha"] = self.alpha_schedule.at(self.state.global_step - 1, self.global_batches.num_batches)
        return {**logs, "tokens": means.num_tokens, "tokens_per_second": means.tokens_per_second}

    # Checkpoints

    def full_state_dict(self) -> dict[str, Tensor] | None:
        """The weights gathered from all processes, which must all call this; None if they are not sharded."""
        return self.accelerator.get_state_dict(self.model) if self.is_fsdp_enabled else None  # pyright: ignore

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As `Trainer.save_model`; ids that the teacher does not predict are left out, except in checkpoints."""
        student = self.accelerator.unwrap_model(self.model)
        if _internal_call or not num_surplus_ids(student, self._windows.vocab_size):
            super().save_model(output_dir, _internal_call)
            return
        state = self.full_state_dict()
        if self.args.should_save:
            save_student(student, Path(output_dir or self.run_directory), self._windows.vocab_size, state)

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """As `Trainer.train`; True resumes from the newest whole checkpoint in `output_dir`, if there is one.

        Raises:
            ConfigurationMismatchError: The checkpoint has another dataset, order, batch size, loss or optimizer.
            CorruptShardError: It is incomplete or damaged; with True: none is whole.
            NonFiniteError: The loss or the gradient is not finite.
        """
        if resume_from_checkpoint is True:
            newest = self.newest_checkpoint()
            resume_from_checkpoint = None if newest is None else str(newest)
        if resume_from_checkpoint:
            self.check_resumable(resume_from_checkpoint)
        self._sums.restart_clock()
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint or None, **options)
        finally:
            # Also after an error, whose message then starts on a line of its own.
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, ProgressBar):
                    callback.close()

    def identity(self) -> dict[str, Any]:
        snapshots = [dataset.snapshot for dataset in datasets_of(self._windows)]
        order = self.global_batches.order
        return {
            "snapshots": [snapshot.number for snapshot in snapshots],
            "shards_digests": [snapshot.shards_digest for snapshot in snapshots],
            "num_windows": [source.num_windows for source in order.sources],
            "weights": [source.weight for source in order.sources],
            "shuffle_windows": order.buffer_windows,
            "seed": order.seed,
            "batch_size_windows": self.global_batches.batch_size_windows,
            "loss": asdict(self.loss_settings),
            "alpha": asdict(self.alpha_schedule),
            **resume.optimizer_settings(self.args),
            "num_steps": self.global_batches.num_batches,
            **self._adapters,
        }

    def length_matters(self, num_taken: int, num_steps: int) -> bool:
        return self.alpha_schedule.depends_on_length or resume.learning_rates_depend_on_length(
            self.args, num_taken, num_steps
        )

    def schedule_at(self, num_taken: int, num_steps: int) -> str:
        rate = resume.learning_rate(self.args, num_taken, num_steps)
        words = "another learning rate" if rate is None else f"learning rate {rate:.3g}"
        if self.alpha_schedule.shape == "constant":
            return words
        return f"{words}, alpha {self.alpha_schedule.at(num_taken, num_steps):.3g}"


def _tensors(result: LinearLoss) -> tuple[Tensor, Tensor, Tensor]:
    return result.loss, result.kl, result.cross_entropy
