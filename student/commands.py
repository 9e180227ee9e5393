"""`logitcask train` and `logitcask student init`. Nothing heavy is imported until they run."""

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from schemas.errors import UsageError

if TYPE_CHECKING:
    from student.evaluation import Evaluation
    from student.run import TrainResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Train a student from the stored targets of a dataset; no teacher is loaded.

    Evaluates on the held-out shards before and after, and leaves the trained student in RUN/student, which plain
    `transformers` loads.

    Example:
        logitcask train OUT --student STUDENT --out RUN --steps 200 --batch-windows 8
    """

    dataset: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]]
    """Directory of the dataset: a path or any fsspec URL."""
    student: str
    """Directory of the student, as `logitcask student init` makes it."""
    out: str
    """Directory of the run."""
    steps: int | None = None
    """Optimiser steps; default: one epoch."""
    batch_windows: int = 8
    """Windows in a step, over all processes and accumulated micro-batches."""
    micro_batch_windows: int = 1
    """Windows in one forward pass of one process."""
    lr: float = 5e-4
    """Peak learning rate."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises."""
    alpha: float = 1.0
    """Weight of the KL to the teacher; 1 - alpha is the weight of the cross-entropy with the text."""
    tail: Literal["other", "renormalise", "raw", "residual", "label", "sample", "blend"] = "other"
    """What becomes of the teacher's mass outside the stored head. other: one bucket. renormalise, raw: forgotten, two
    biased baselines. residual: given to the actual next token. label: a bucket, and one more for the next token.
    sample: carried by sampled ids, unbiased. blend: partly by them, partly by the bucket."""
    divergence: Literal["forward", "reverse", "jsd"] = "forward"
    """Between teacher and student: KL(teacher, student), KL(student, teacher), or Jensen-Shannon."""
    jsd_beta: float = 0.5
    """The teacher's share in the mixture of jsd."""
    sample_share: float = 0.5
    """The share of the tail that sampled ids carry, with --tail blend."""
    temperature: float = 1.0
    """Of the divergence; loss and gradient are multiplied by its square."""
    tempering: Literal["exact", "head"] = "exact"
    """exact: needs shards annotated with that temperature. head: tempers inside the head only."""
    seed: int = 0
    """Of the order of the windows and of dropout."""
    save_every: int = 0
    """Steps between checkpoints; 0: none."""
    resume: bool = False
    """Continue from the newest checkpoint in RUN."""
    eval_windows: int | None = None
    """Held-out windows to evaluate on; default: all."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass; weights and optimiser stay in float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: the GPU if there is one."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    snapshot: int | None = None
    """Number of the dataset's snapshot; default: the latest."""

    def run(self) -> int:
        from student.run import TrainSettings, train

        result = train(TrainSettings(**asdict(self)))
        if os.environ.get("RANK", "0") == "0":  # under torchrun every process comes here
            _print_result(result)
        return 0


def _print_result(result: "TrainResult") -> None:
    """The held-out evaluation before and after, on stdout."""
    if result.before and result.after:
        print(f"{'held-out':<28}{'before':>12}{'after':>12}")
        for name, before, after in _compared(result.before, result.after):
            print(f"{name:<28}{_figure(before):>12}{_figure(after):>12}")
        print(f"{'teacher loss (nats)':<28}{'':>12}{_figure(result.after.teacher_loss_nats):>12}")
    print(f"student: {result.student}")


def _figure(value: float) -> str:
    return f"{value:.4f}" if value < 1000 else f"{value:,.0f}"


def _compared(before: "Evaluation", after: "Evaluation") -> list[tuple[str, float, float]]:
    return [
        ("KL to the teacher (nats)", before.kl_nats, after.kl_nats),
        ("next-token loss (nats)", before.loss_nats, after.loss_nats),
        ("perplexity", before.perplexity, after.perplexity),
        ("top-1 agreement with text", before.top1_agreement, after.top1_agreement),
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentInit:
    """Make a student: layers of the teacher, a checkpoint, or random weights.

    With --teacher and --keep-layers or --layers the student is cut from the teacher; with --teacher and --scratch it
    is random, with the teacher's tokenizer and vocabulary; with --from it is a checkpoint as it is.

    Example:
        logitcask student init --teacher TEACHER --keep-layers 0,5,10,15,20,25 --out STUDENT
    """

    out: str
    """Directory of the student; must be new or empty."""
    teacher: str | None = None
    """Directory, .gguf file or hub id of the teacher."""
    from_checkpoint: Annotated[str | None, tyro.conf.arg(aliases=["--from"])] = None
    """Directory, .gguf file or hub id whose weights to take whole."""
    keep_layers: str | None = None
    """Layers of the teacher to keep: 0,5,10."""
    layers: int | None = None
    """Keep so many layers, evenly spaced; with --scratch: the depth."""
    scratch: bool = False
    """Random weights: Gemma-2-style by the sizes below, or as --model-config says."""
    model_config: str | None = None
    """With --scratch: a config.json of transformers instead of sizes."""
    width: int = 320
    """With --scratch: width of the residual stream."""
    heads: int = 5
    """With --scratch: attention heads."""
    kv_heads: int = 1
    """With --scratch: key and value heads."""
    head_width: int = 64
    """With --scratch: width of a head."""
    mlp_width: int = 960
    """With --scratch: width of the gate."""
    seed: int = 0
    """With --scratch: of the weights."""

    def run(self) -> int:
        from student.init import making

        self._check()
        if self.from_checkpoint is not None:
            model = making.from_checkpoint(self.from_checkpoint, self.out)
        elif self.scratch:
            model = self._from_scratch()
        else:
            assert self.teacher is not None, "checked"
            keep = None if self.keep_layers is None else parse_layers(self.keep_layers)
            model = making.prune_teacher(self.teacher, self.out, keep_layers=keep, layers=self.layers)
        depth = model.config.get_text_config().num_hidden_layers
        print(f"student: {self.out} ({type(model).__name__}, {depth} layers, {model.num_parameters():,} parameters)")
        return 0

    def _check(self) -> None:
        if (self.teacher is None) == (self.from_checkpoint is None):
            raise UsageError("give either --teacher (to cut layers from it, or with --scratch) or --from CHECKPOINT")
        if self.from_checkpoint is not None and (self.keep_layers or self.layers or self.scratch):
            raise UsageError("--from takes a checkpoint as it is; to cut layers from it, use --teacher")
        if self.model_config is not None and not self.scratch:
            raise UsageError("--model-config is for --scratch")
        if self.teacher is not None and not self.scratch and (self.keep_layers is None) == (self.layers is None):
            raise UsageError("say which layers to keep (--keep-layers 0,5,10) or how many (--layers 6), or --scratch")
        if self.scratch and self.keep_layers is not None:
            raise UsageError("--keep-layers cuts a teacher; with --scratch give --layers N")

    def _from_scratch(self):
        from student.init import making
        from student.init.scratch import Gemma2Sizes

        assert self.teacher is not None, "checked"
        sizes = Gemma2Sizes(
            layers=self.layers or Gemma2Sizes().layers,
            width=self.width,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_width=self.head_width,
            mlp_width=self.mlp_width,
        )
        return making.from_scratch(self.teacher, self.out, sizes=sizes, config_file=self.model_config, seed=self.seed)


def parse_layers(text: str) -> list[int]:
    """Layer indices of "0,5,10".

    Raises:
        UsageError: Not a list of numbers.
    """
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--keep-layers wants numbers like 0,5,10; found {text!r}") from error
