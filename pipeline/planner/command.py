"""`logitcask plan`. Imports nothing heavy; loads a model only to measure it."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import tyro

from logitcask.schemas.terminal.guard import print_json

if TYPE_CHECKING:
    from logitcask.pipeline.planner.model_shapes import ModelShape
    from logitcask.pipeline.planner.plan import Job, Prices
    from logitcask.schemas.format.scheme import Scheme

_INT = tyro.conf.arg(metavar="INT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Estimate the cost of an annotation before it runs.

    Storage, GPU hours, prices, the student's reading, and the number of students or epochs from which caching is
    cheaper than a live teacher. Each assumption has a flag, and --json names the source of every formula. Bytes are
    for the layout `plain`.

    Example:
        logitcask plan --teacher google/gemma-2-27b --tokens 2e12 --scheme adaptive
    """

    teacher: str
    """google/gemma-2-2b, -9b or -27b; a directory with config.json; or any name with --parameters."""
    tokens: float
    """Tokens of the corpus, such as 2e12."""
    scheme: Literal["adaptive", "threshold", "topk", "topp", "random-sampling", "threshold-sampling"] = "adaptive"
    """What is stored; `adaptive` is `threshold`, the default of annotate."""
    tau: float = 1e-3
    """Probability threshold of `adaptive`."""
    k: int = 128
    """Maximum entries of a head."""
    p: float = 0.95
    """Probability mass of `topp`."""
    draws: int = 50
    """Draws of `random-sampling`."""
    theta: float = 1 / 36
    """Probability threshold of `threshold-sampling`."""
    replicas: int = 1
    """Independent samples of each position."""
    bytes_per_token: Optional[float] = None  # noqa: UP045 (tyro checks `float | None` with typeguard: 0.1 s to import)
    """Stored bytes of a token, if known from a first dataset."""
    window: int = 4096
    """Positions of a window."""
    shard_tokens: int = 1 << 20
    """Positions of a shard."""

    parameters: Optional[float] = None  # noqa: UP045
    """Non-embedding parameters of an unknown teacher, such as 7e9."""
    d_model: Annotated[Optional[int], _INT] = None  # noqa: UP045
    """Model width of that teacher."""
    vocab_size: Annotated[Optional[int], _INT] = None  # noqa: UP045
    """Vocabulary size of that teacher."""
    layers: int = 0
    """Layers of that teacher; if 0, attention is not counted. Assumes query heads as wide as the model in total."""

    student: str = "google/gemma-2-2b"
    """The student, given as for --teacher."""
    student_gpus: int = 8
    """GPUs that a student trains on."""
    student_mfu: float = 0.4
    """Share of the GPUs' peak that training reaches."""

    gpu: Literal["H100", "H200", "A100"] = "H100"
    """GPU of both the teacher and the student."""
    peak_tflops: Optional[float] = None  # noqa: UP045
    """Dense bfloat16 TFLOP/s of another GPU."""
    gpus: int = 64
    """GPUs that the teacher runs on."""
    mfu: float = 0.5
    """Share of the GPUs' peak that the teacher's forward pass reaches."""
    measure: bool = False
    """Load the teacher and time it on this machine, instead of computing its speed from FLOP."""

    gpu_hour: float = 2.5
    """Price of a GPU hour."""
    gb_month: float = 0.023
    """Price of storing a GB for a month."""
    gb_read: float = 0.0
    """Price of moving a GB to the student; 0 inside one region."""
    thousand_writes: float = 0.005
    """Price of a thousand put requests."""
    months: float = 6
    """How long the shards are kept."""

    against: Optional[str] = None  # noqa: UP045
    """A finished dataset whose actual cost is shown next to this plan."""
    json: bool = False
    """Print JSON instead of text; docs/plan-json.md explains it."""

    def run(self) -> int:
        from logitcask.pipeline.planner.plan import against, make_plan

        plan = make_plan(self.job(), self.prices())
        if self.against is not None:
            from logitcask.schemas.dataset.snapshot import load_snapshot

            plan["against"] = against(plan, load_snapshot(self.against))
        if self.json:
            print_json(plan)
        else:
            from logitcask.pipeline.planner.view import print_plan

            print_plan(plan)
        return 0

    def prices(self) -> "Prices":
        from logitcask.pipeline.planner.plan import Prices

        return Prices(**{name: getattr(self, name) for name in Prices.__dataclass_fields__})

    def job(self) -> "Job":
        """The job to plan; measures the teacher with --measure.

        Raises:
            UsageError: A setting is invalid, or the teacher's shape is not known.
        """
        from logitcask.pipeline.planner.formulas import PEAK_FLOP_PER_SECOND
        from logitcask.pipeline.planner.model_shapes import find_shape
        from logitcask.pipeline.planner.plan import Job

        self._check()
        return Job(
            teacher=self._teacher_shape(),
            student=find_shape(self.student),
            num_tokens=self.tokens,
            window_tokens=self.window,
            scheme=self._scheme(),
            bytes_per_token=self.bytes_per_token,
            gpu=self.gpu if self.peak_tflops is None else "GPU",
            peak_flop_per_second=1e12 * self.peak_tflops if self.peak_tflops else PEAK_FLOP_PER_SECOND[self.gpu],
            teacher_utilization=self.mfu,
            student_utilization=self.student_mfu,
            teacher_gpus=self.gpus,
            student_gpus=self.student_gpus,
            shard_tokens=self.shard_tokens,
            months=self.months,
            teacher_tokens_per_second=self._measured() if self.measure else None,
        )

    def _check(self) -> None:
        from logitcask.schemas.errors import UsageError

        for name in ("tokens", "window", "shard_tokens", "gpus", "student_gpus", "mfu", "student_mfu"):
            if getattr(self, name) <= 0:
                raise UsageError(f"--{name.replace('_', '-')} must be positive, got {getattr(self, name)}")
        for name in ("mfu", "student_mfu"):
            if getattr(self, name) > 1:
                raise UsageError(
                    f"--{name.replace('_', '-')} is a share of the peak, at most 1, got {getattr(self, name)}"
                )
        for name in ("gpu_hour", "gb_month", "gb_read", "thousand_writes", "months"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name.replace('_', '-')} must not be negative, got {getattr(self, name)}")

    def _teacher_shape(self) -> "ModelShape":
        from logitcask.pipeline.planner.model_shapes import ModelShape, find_shape
        from logitcask.schemas.errors import UsageError

        if self.parameters is None:
            return find_shape(self.teacher)
        if self.d_model is None or self.vocab_size is None:
            raise UsageError("--parameters needs --d-model and --vocab-size, for the vocabulary projection")
        return ModelShape(
            name=self.teacher,
            non_embedding_parameters=int(self.parameters),
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            num_layers=self.layers,
            attention_width=self.d_model,
        )

    def _scheme(self) -> "Scheme":
        from logitcask.schemas.format.scheme import choose_scheme

        kind = "threshold" if self.scheme == "adaptive" else self.scheme
        return choose_scheme(
            kind, {name: getattr(self, name) for name in ("tau", "k", "p", "draws", "theta", "replicas")}
        )

    def _measured(self) -> float:
        import sys

        from logitcask.pipeline.planner.benchmark import measure

        pace = measure(self.teacher, self._scheme(), self.window)
        print(f"logitcask: measured {asdict(pace)}", file=sys.stderr)
        return pace.tokens_per_second
