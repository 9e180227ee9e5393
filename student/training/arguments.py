"""`TrainingArguments` of `transformers`: how a run's settings become them, and what they say about batches."""

import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from logitcask.schemas.errors import UsageError
from logitcask.student.data.global_batches import GlobalBatches
from logitcask.student.data.mixture import WindowDataset
from logitcask.student.data.order import WindowOrder
from logitcask.student.settings import TrainSettings

# Our names to those of `transformers`, whose "constant" has no warm-up.
_SCHEDULES = {"constant": "constant_with_warmup", "wsd": "warmup_stable_decay"}


def training_arguments(settings: TrainSettings, run: Path) -> TrainingArguments:
    """The arguments of a run in the directory `run`.

    Raises:
        UsageError: A batch that cannot be divided over processes and micro-batches; --fsdp with one process.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun
    per_step = settings.micro_batch_windows * ranks
    if settings.batch_windows % per_step:
        raise UsageError(
            f"batch_windows {settings.batch_windows} must be a multiple of micro_batch_windows × processes = {per_step}"
        )
    return TrainingArguments(
        output_dir=str(run),
        max_steps=settings.steps or -1,
        num_train_epochs=1,
        per_device_train_batch_size=settings.micro_batch_windows,
        per_device_eval_batch_size=settings.micro_batch_windows,
        gradient_accumulation_steps=settings.batch_windows // per_step,
        learning_rate=settings.lr,
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type=_SCHEDULES.get(settings.schedule, settings.schedule),
        lr_scheduler_kwargs={"num_decay_steps": settings.decay_steps} if settings.schedule == "wsd" else {},
        weight_decay=0.1,
        adam_beta2=0.95,
        seed=settings.seed,
        bf16=settings.dtype == "bfloat16",
        use_cpu=settings.device == "cpu" or not torch.cuda.is_available(),
        activation_checkpointing=settings.gradient_checkpointing,
        logging_steps=1,
        save_strategy="steps" if settings.save_every else "no",
        save_steps=settings.save_every or 500,
        save_total_limit=2,
        eval_strategy="no",
        report_to="none",
        dataloader_num_workers=settings.workers,
        disable_tqdm=False,
        **_sharding(settings, ranks),
    )


def check_arguments(args: TrainingArguments) -> None:
    """Refuses arguments that `SoftTargetTrainer` does not support.

    Raises:
        UsageError: Several GPUs in one process, label smoothing, or an automatic batch size.
    """
    if args.n_gpu > 1:
        raise UsageError(
            f"{args.n_gpu} GPUs in one process are not supported; start a process per GPU: `torchrun --nproc-per-node`"
        )
    if args.label_smoothing_factor:
        raise UsageError("label_smoothing_factor does not apply to soft targets; leave it at 0")
    if args.auto_find_batch_size:
        raise UsageError("auto_find_batch_size would change the batches; set per_device_train_batch_size")


def global_batches(args: TrainingArguments, windows: WindowDataset, shuffle_windows: int | None) -> GlobalBatches:
    """The batches of a run; without `max_steps`, `num_train_epochs` sets their number.

    Raises:
        UsageError: The shuffle buffer is smaller than a block, a weight is not above 0, or no window has a target.
    """
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    order = WindowOrder(
        sources=windows.sources(),
        seed=args.seed if args.data_seed is None else args.data_seed,
        buffer_windows=shuffle_windows,
    )
    without = len(windows) - order.num_windows
    if without and args.process_index == 0:
        print(f"{without:,} of {len(windows):,} windows have no target and are left out of training", file=sys.stderr)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * order.num_windows / batch)
    return GlobalBatches(
        order=order,
        batch_size_windows=batch,
        micro_batch_windows=args.per_device_train_batch_size,
        num_batches=steps,
        num_ranks=args.world_size,
    )


def _sharding(settings: TrainSettings, ranks: int) -> dict[str, Any]:
    if not settings.fsdp:
        return {}
    if ranks < 2:
        raise UsageError("--fsdp shards over processes; start several: `torchrun --nproc-per-node N --no-python ...`")
    return {"fsdp": True, "fsdp_config": {"version": 2}}
