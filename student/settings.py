"""Settings of runs and of new students, without anything heavy: the commands show them before torch is imported.

A field's text below it is what `--help` says of its flag.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from logitcask.schemas.errors import UsageError
from logitcask.student.alpha_schedule import AlphaSchedule, AlphaShape

Tail = Literal["other", "renormalise", "raw", "residual", "label", "sample", "blend"]
DivergenceName = Literal["forward", "reverse", "jsd"]
Tempering = Literal["exact", "head"]
FeedForward = Literal["geglu", "swiglu", "reglu", "gelu", "relu"]

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class LossFields:
    """Which loss between the teacher's targets and the student; `student.losses.loss_settings` gives it meaning."""

    tail: Tail = "other"
    """What becomes of the teacher's mass outside the stored head. other: one bucket. renormalise, raw: forgotten, two
    biased baselines. residual: given to the actual next token. label: a bucket, and one more for the next token.
    sample: carried by sampled ids, unbiased. blend: partly by them, partly by the bucket."""
    divergence: DivergenceName = "forward"
    """Between teacher and student: KL(teacher, student), KL(student, teacher), or Jensen-Shannon."""
    jsd_beta: float = 0.5
    """The teacher's share in the mixture of jsd."""
    sample_share: float = 0.5
    """The share of the tail that sampled ids carry, with --tail blend."""
    temperature: float = 1.0
    """Of the divergence; loss and gradient are multiplied by its square."""
    tempering: Tempering = "exact"
    """exact: needs shards annotated with that temperature. head: tempers inside the head only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings(LossFields):
    """Settings of a run.

    Raises:
        UsageError: Values that cannot be meant.
    """

    datasets: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="OUT")]]
    """Directory of the dataset, or several to mix: paths or any fsspec URLs."""
    student: str
    """Directory of the student, as `logitcask student init` makes it."""
    out: str
    """Directory of the run."""
    weights: tuple[float, ...] = ()
    """With several datasets: how often each one's windows are taken; default: as many as it has."""
    snapshot: tuple[int, ...] = ()
    """Number of each dataset's snapshot; default: the latest."""
    steps: int | None = None
    """Optimiser steps; default: one epoch."""
    batch_windows: int = 8
    """Windows in a step, over all processes and accumulated micro-batches."""
    micro_batch_windows: int = 1
    """Windows in one forward pass of one process."""
    shuffle_windows: int | None = None
    """For datasets too big to be read at random: shuffle blocks of neighbouring windows, and windows inside so many;
    default: shuffle each epoch whole."""
    lr: float = 5e-4
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """Of the learning rate after its warm-up; wsd: stays up, then falls over --decay-steps."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises."""
    decay_steps: int = 0
    """Steps over which the learning rate falls, with --schedule wsd."""
    alpha: float = 1.0
    """Weight of the KL to the teacher; 1 - alpha is the weight of the cross-entropy with the text."""
    alpha_schedule: AlphaShape = "constant"
    """Course of alpha. linear: from alpha to --alpha-end over the run. wsd: from --alpha-end up, stays, and down."""
    alpha_end: float = 0.0
    """Where a linear alpha ends, and a wsd alpha begins and ends."""
    alpha_warmup_steps: int = 0
    """Steps over which a wsd alpha rises."""
    alpha_decay_steps: int = 0
    """Steps over which a wsd alpha falls."""
    online: str | None = None
    """Directory, .gguf file or hub id of a teacher to run beside the student, in place of the stored targets."""
    online_targets: Literal["full", "stored"] = "full"
    """With --online. full: the KL over the whole vocabulary. stored: heads and tails as the shards have them."""
    seed: int = 0
    """Of the order of the windows and of dropout."""
    save_every: int = 0
    """Steps between checkpoints; 0: none."""
    resume: bool = False
    """Continue from the newest checkpoint in RUN, with the data, loss and learning rate it was begun with."""
    eval_windows: int | None = None
    """Held-out windows to evaluate on; default: all."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass; weights and optimiser stay in float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: the GPU if there is one."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    fsdp: bool = False
    """Under torchrun: shard weights, gradients and optimiser over the processes."""
    workers: int = 0
    """Processes that read and decode shards ahead; 0: in the training process."""
    copies: str | None = None
    """Local directory that keeps copies of remote shards."""
    copies_gib: float = 20.0
    """How much --copies may hold, beside what each process has open or fetches."""
    tensorboard: bool = False
    """Write metrics for TensorBoard too, into RUN/tensorboard."""

    def __post_init__(self) -> None:
        if not self.datasets:
            raise UsageError("no dataset to train on; give the directory of one")
        for name in ("batch_windows", "micro_batch_windows"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1; found {getattr(self, name)}")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps must be at least 1; found {self.steps}")
        if not self.lr > 0:
            raise UsageError(f"lr must be above 0; found {self.lr}")
        if (self.schedule == "wsd") != (self.decay_steps > 0):
            raise UsageError("--schedule wsd and --decay-steps go together: the learning rate falls over those")
        for name in ("weights", "snapshot"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.datasets):
                raise UsageError(f"{len(self.datasets)} datasets, but {len(getattr(self, name))} for --{name}")
        self.alpha_by_step  # noqa: B018 - refuses what cannot be meant

    @property
    def alpha_by_step(self) -> AlphaSchedule:
        """The weight of the KL over the run."""
        return AlphaSchedule(
            shape=self.alpha_schedule,
            alpha=self.alpha,
            end=self.alpha_end,
            warmup_steps=self.alpha_warmup_steps,
            decay_steps=self.alpha_decay_steps,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSettings:
    """Settings of an evaluation."""

    student: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN")]]
    """Directory of a finished run, or of a student."""
    shards: str
    """Directory of the dataset: a path or any fsspec URL."""
    split: Literal["held-out", "train"] = "held-out"
    """Which of the dataset's windows."""
    snapshot: int | None = None
    """Number of the snapshot; default: the latest."""
    online: str | None = None
    """Directory, .gguf file or hub id of the teacher, for the exact KL."""
    windows: int | None = None
    """Measure on so many windows; default: all."""
    batch_windows: int = 1
    """Windows in one forward pass."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; auto: the GPU if there is one."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSizes:
    """Sizes of a decoder from scratch, but for its depth; defaults with eight layers are about 10M parameters beside
    the embeddings."""

    width: int = 320
    """With --scratch: width of the residual stream."""
    heads: int = 5
    """With --scratch: attention heads."""
    kv_heads: int = 1
    """With --scratch: key and value heads."""
    head_width: int = 64
    """With --scratch: width of a head."""
    mlp_width: int = 960
    """With --scratch: width of the gate; a feed-forward without a gate gets 3/2 of it, for equal parameters."""
    family: Literal["gemma2", "llama"] = "gemma2"
    """With --scratch: norms, soft-caps and local layers as Gemma 2 has them, or plain as in Llama."""
    feed_forward: FeedForward = "geglu"
    """With --scratch: geglu, swiglu, reglu: gated. gelu, relu (family llama): two matrices in place of three."""
