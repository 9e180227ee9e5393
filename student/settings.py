"""Settings of runs and of new students. Nothing heavy is imported: the commands show them before torch is imported.

The text below a field is the help text of its flag.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, cast

import tyro

from logitcask.schemas.errors import UsageError
from logitcask.student.alpha_schedule import AlphaSchedule, AlphaShape

Tail = Literal["other", "renormalize", "raw", "residual", "label", "sample", "blend"]
DivergenceName = Literal["forward", "reverse", "jsd"]
Tempering = Literal["exact", "head"]
FeedForward = Literal["geglu", "swiglu", "reglu", "gelu", "relu"]

GIB = 1 << 30

_RENAMED_TAILS: dict[str, Tail] = {"renormalise": "renormalize"}


def current_tail(tail: str) -> Tail:
    """A tail treatment under its current name; old settings and checkpoints may hold an older one."""
    return _RENAMED_TAILS.get(tail, cast(Tail, tail))


@dataclass(frozen=True, kw_only=True, slots=True)
class LossFields:
    """The loss between the teacher's targets and the student; `student.losses.loss_settings` implements it."""

    old_names: ClassVar[dict[str, str]] = {f"tail={old}": f"tail={new}" for old, new in _RENAMED_TAILS.items()}

    tail: Tail = "other"
    """How to treat the teacher's mass outside the stored head. other: one bucket. renormalize, raw: ignore it, two
    biased baselines. residual: add it to the actual next token. label: one bucket, and one more for the next token.
    sample: sampled ids carry it, unbiased. blend: sampled ids carry a part, the bucket the rest."""
    divergence: DivergenceName = "forward"
    """Divergence between teacher and student: KL(teacher, student), KL(student, teacher), or Jensen-Shannon."""
    jsd_beta: float = 0.5
    """The teacher's share in the mixture, with --divergence jsd."""
    sample_share: float = 0.5
    """The share of the tail that sampled ids carry, with --tail blend."""
    temperature: float = 1.0
    """Temperature of the divergence; loss and gradient are multiplied by its square."""
    tempering: Tempering = "exact"
    """With a temperature. exact: the shards must be annotated with it. head: temper inside the head only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings(LossFields):
    """Settings of a run.

    Raises:
        UsageError: Invalid values.
    """

    datasets: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="OUT")]]
    """Directory of the dataset, or several to mix: paths or any fsspec URLs."""
    student: str
    """Directory of the student, as `logitcask student init` writes it."""
    out: str
    """Directory of the run."""
    tokenizer: str | None = None
    """Tokenizer that RUN/student gets, such as the one of `annotate --tokenizer`; it must have the student's ids."""
    weights: tuple[float, ...] = ()
    """With several datasets: how often to take windows from each; default: in proportion to their windows."""
    snapshot: tuple[int, ...] = ()
    """Snapshot number of each dataset; default: the latest."""
    allow_partial: bool = False
    """Accept snapshots of a job that still runs (`annotate --publish-every`)."""
    steps: int | None = None
    """Optimizer steps; default: one epoch."""
    batch_windows: int = 8
    """Windows per step, over all processes and accumulated micro-batches."""
    micro_batch_windows: int = 1
    """Windows per forward pass of one process."""
    shuffle_windows: int | None = None
    """For datasets too big for random access: shuffle blocks of consecutive windows, then the windows within a buffer
    of this size; default: shuffle each epoch as a whole."""
    lr: float = 5e-4
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """Learning rate after its warm-up; wsd: constant, then decays over --decay-steps."""
    warmup_steps: int = 0
    """Steps of learning rate warm-up."""
    decay_steps: int = 0
    """Steps of learning rate decay, with --schedule wsd."""
    alpha: float = 1.0
    """Weight of the KL to the teacher; 1 - alpha is the weight of the cross-entropy with the text."""
    alpha_schedule: AlphaShape = "constant"
    """Alpha over the run. linear: from alpha to --alpha-end. wsd: up from --alpha-end, constant, down again."""
    alpha_end: float = 0.0
    """Last value of a linear alpha, first and last value of a wsd alpha."""
    alpha_warmup_steps: int = 0
    """Steps of alpha warm-up, with --alpha-schedule wsd."""
    alpha_decay_steps: int = 0
    """Steps of alpha decay, with --alpha-schedule wsd."""
    lora_r: int = 0
    """Rank of LoRA adapters, which are trained instead of the student's weights; 0: train all weights."""
    lora_alpha: int | None = None
    """Scale of the adapters, divided by their rank; default: twice the rank."""
    lora_dropout: float = 0.0
    """Dropout before the adapters."""
    lora_targets: tuple[str, ...] = ()
    """Modules to adapt, such as q_proj v_proj; default: all linear layers except the output projection."""
    lora_merge: bool = False
    """Export the student with its adapters merged; default: the adapters alone, which name the student's directory."""
    lora_4bit: bool = False
    """Keep the student's own weights in 4 bits (QLoRA); needs CUDA and the package bitsandbytes."""
    online: str | None = None
    """Directory, .gguf file or hub id of a live teacher, used instead of the stored targets."""
    online_targets: Literal["full", "stored"] = "full"
    """With --online. full: KL over the whole vocabulary. stored: heads and tails by the shards' scheme."""
    seed: int = 0
    """Seed of the window order and of dropout."""
    save_every: int = 0
    """Steps between checkpoints; 0: no checkpoints."""
    resume: bool = False
    """Resume from the newest checkpoint in RUN; data, loss and learning rate must be those of its start. --steps may be
    larger."""
    extend: bool = False
    """With --resume and other --steps: accept that the learning rate and alpha follow the new length from here on."""
    eval_windows: int | None = None
    """Held-out windows to evaluate on; default: all."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the forward and backward pass; weights and optimizer stay in float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; auto: the GPU if there is one."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    fsdp: bool = False
    """Under torchrun: shard weights, gradients and optimizer over the processes."""
    workers: int = 0
    """Processes that read and decode shards ahead of time; 0: the training process reads them."""
    copies: str | None = None
    """Local directory for copies of remote shards."""
    copies_gib: float = 20.0
    """Maximum size of --copies in GiB, not counting the shards that a process has open or is fetching."""
    tensorboard: bool = False
    """Also write metrics for TensorBoard, into RUN/tensorboard."""

    def __post_init__(self) -> None:
        if not self.datasets:
            raise UsageError("no dataset to train on; name at least one directory")
        for name in ("batch_windows", "micro_batch_windows"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1; found {getattr(self, name)}")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps must be at least 1; found {self.steps}")
        if not self.lr > 0:
            raise UsageError(f"lr must be above 0; found {self.lr}")
        if (self.schedule == "wsd") != (self.decay_steps > 0):
            raise UsageError(
                f"--schedule wsd needs --decay-steps above 0, and no other schedule uses them; found --schedule "
                f"{self.schedule} with --decay-steps {self.decay_steps}"
            )
        for name in ("weights", "snapshot"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.datasets):
                raise UsageError(
                    f"--{name} has {len(getattr(self, name))} values for {len(self.datasets)} datasets; give one each"
                )
        self._check_adapters()
        self.alpha_by_step  # noqa: B018 - refuses invalid values

    def _check_adapters(self) -> None:
        options = ("lora_alpha", "lora_dropout", "lora_targets", "lora_merge", "lora_4bit")
        if not self.lora_r and any(getattr(self, name) for name in options):
            raise UsageError("the options --lora-... need --lora-r, the rank of the adapters")
        if self.lora_r < 0 or (self.lora_alpha is not None and self.lora_alpha < 1):
            raise UsageError(
                f"lora_r must be at least 0 and lora_alpha at least 1; found {self.lora_r} and {self.lora_alpha}"
            )
        if not 0 <= self.lora_dropout < 1:
            raise UsageError(f"lora_dropout must be at least 0 and below 1; found {self.lora_dropout}")
        if self.lora_4bit and self.lora_merge:
            raise UsageError(
                "adapters cannot be merged exactly with 4-bit weights; use --lora-4bit without --lora-merge"
            )
        if self.lora_r and self.fsdp:
            raise UsageError("adapters are not supported with --fsdp; under torchrun alone they are")

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
    """Split of the dataset to evaluate on."""
    snapshot: int | None = None
    """Snapshot number; default: the latest."""
    allow_partial: bool = False
    """Accept a snapshot of a job that still runs (`annotate --publish-every`)."""
    online: str | None = None
    """Directory, .gguf file or hub id of the teacher, for the exact KL."""
    windows: int | None = None
    """Number of windows to evaluate on; default: all."""
    batch_windows: int = 1
    """Windows per forward pass."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to run on; auto: the GPU if there is one."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSizes:
    """Sizes of a decoder from scratch, except its depth. The defaults with eight layers give about 10M parameters plus
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
    """With --scratch: width of the gate; a feed-forward layer without a gate is 3/2 as wide, for equal parameters."""
    family: Literal["gemma2", "llama"] = "gemma2"
    """With --scratch. gemma2: norms, soft-caps and local layers as in Gemma 2. llama: plain, as in Llama."""
    feed_forward: FeedForward = "geglu"
    """With --scratch. geglu, swiglu, reglu: gated. gelu, relu (family llama): two matrices instead of three."""
