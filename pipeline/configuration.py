"""Settings of an annotation job, as a user gives them. Light: importing this costs nothing."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from schemas.errors import UsageError
from schemas.scheme import SchemeKind

SUPPORTED_RUNNERS = ("local", "dask")

_NUMBERS = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="T,T",
    instance_from_str=lambda words: tuple(float(number) for number in words[0].split(",") if number),
    is_instance=lambda value: isinstance(value, tuple) and all(isinstance(number, float) for number in value),
    str_from_instance=lambda numbers: [",".join(f"{number:g}" for number in numbers)],
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotateConfig:
    """Settings of an annotation job; defaults are those of the command line."""

    corpus: tyro.conf.Positional[tuple[str, ...]]
    """Files, directories or globs, on any fsspec URL: .txt, .md, .jsonl (also .gz, .zst) and .parquet."""

    teacher: str
    """Directory, hub id or .gguf file of the model that annotates."""

    out: str
    """Directory of the dataset; a job that was cut short goes on where it stopped."""

    tokenizer: str | None = None
    """Another tokenizer than the teacher's own: a directory, hub id, .gguf or SentencePiece .model."""

    text_field: str = "text"
    """Field of .jsonl and .parquet records that holds the text."""

    chat_field: str | None = None
    """Field with chat messages instead; only what the assistant says gets targets."""

    window: int = 1024
    """Most positions of a window."""

    overlap: int = 0
    """Positions of a long document that are repeated as context at the start of its next window."""

    head: SchemeKind = "threshold"
    """What is stored: p ≥ tau, the k largest, the largest with mass ≥ p, draws alone, or p ≥ theta and draws."""

    tau: float = 1e-3
    """Probability threshold of `threshold`."""

    k: int = 128
    """Most entries of a head."""

    k_min: int = 1
    """Fewest entries of a head (`threshold`)."""

    p: float = 0.95
    """Probability mass of `topp`."""

    draws: int = 50
    """Draws at each position (`random-sampling`)."""

    theta: float = 1 / 36
    """Probability threshold of `threshold-sampling`; also the mass that one draw stands for, about."""

    replicas: int = 1
    """Independent samples of each position, so that epochs need not see the same (`random-`, `threshold-sampling`)."""

    temperatures: Annotated[tuple[float, ...], _NUMBERS] = ()
    """Further temperatures at which a student can be trained exactly: 2 or 2,4 (not with samples)."""

    held_out: float = 0.01
    """Share of documents that are kept for evaluation."""

    entropy: bool = True
    """Store the entropy of the full distribution at every position."""

    corpus_licence: str | None = None
    """Terms of the text; they travel with the shards."""

    shard_tokens: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Most positions of a shard (default: 32,768 on a CPU, 1,048,576 on a GPU)."""

    batch_tokens: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Positions in one forward pass (default: 2,048 on a CPU, 32,768 on a GPU)."""

    document_bytes: int = 64 << 20
    """Longer documents are set aside."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the teacher's forward pass (auto: float32 on a CPU, bfloat16 on a GPU)."""

    threads: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """CPU threads of each worker (default: all cores, shared between workers)."""

    workers: int = 1
    """Worker processes on this machine."""

    runner: str = "local"
    """local (Beam's in-process runner) or dask."""

    dask_scheduler: str | None = None
    """Address of the Dask scheduler, tcp://HOST:PORT."""

    attempts: int = 1
    """How often a failed job is tried; finished units are never done twice."""

    def check(self) -> None:
        """Raises UsageError for values that cannot be meant."""
        faults = [
            (not self.corpus, "give at least one corpus file, directory or glob"),
            (self.window < 2, f"--window must be at least 2, got {self.window}"),
            (not 0 <= self.overlap < self.window, f"--overlap must be in [0, {self.window}), got {self.overlap}"),
            (not 0 <= self.held_out < 1, f"--held-out is a share in [0, 1), got {self.held_out}"),
            (self.document_bytes < 1, f"--document-bytes must be positive, got {self.document_bytes}"),
            (self.attempts < 1, f"--attempts must be at least 1, got {self.attempts}"),
            (_below(self.threads, 1), f"--threads must be at least 1, got {self.threads}"),
            (_below(self.batch_tokens, 1), f"--batch-tokens must be positive, got {self.batch_tokens}"),
            (
                _below(self.shard_tokens, self.window),
                f"--shard-tokens must hold at least one window of {self.window}, got {self.shard_tokens}",
            ),
        ]
        for is_fault, message in faults:
            if is_fault:
                raise UsageError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerSettings:
    """Where a stage runs.

    Attributes:
        name: "local" or "dask".
        num_workers: Processes of the local runner; with one, units run in this process.
        dask_scheduler: Address of a Dask scheduler, `tcp://host:port`.
    """

    name: str = "local"
    num_workers: int = 1
    dask_scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.name not in SUPPORTED_RUNNERS:
            raise UsageError(f"--runner {self.name}: not supported yet; choose one of {', '.join(SUPPORTED_RUNNERS)}")
        if self.num_workers < 1:
            raise UsageError(f"--workers must be at least 1, got {self.num_workers}")
        if self.name == "dask" and self.dask_scheduler is None:
            raise UsageError("--runner dask needs --dask-scheduler tcp://HOST:PORT")
        if self.name != "dask" and self.dask_scheduler is not None:
            raise UsageError("--dask-scheduler is only of use with --runner dask")
        if self.name == "dask" and self.num_workers != 1:
            raise UsageError("--workers is of the local runner; a Dask cluster has the workers it was started with")


def _below(value: int | None, minimum: int) -> bool:
    return value is not None and value < minimum
