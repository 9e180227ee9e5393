"""Settings of an annotation job, as a user gives them. Light: importing this costs nothing."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from logitcask.pipeline.runners.settings import RunnerSettings
from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.scheme import Layout, SchemeKind

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

    layout: Layout = "plain"
    """How ids are stored: `plain`, or `compact`: an eighth smaller, slower to read, and hard for other tools."""

    append: bool = False
    """Add the corpus to a finished dataset, as a new snapshot; all other settings must be the dataset's."""

    corpus_licence: str | None = None
    """Terms of the text; they travel with the shards."""

    shard_tokens: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Most positions of a shard (default: 32,768 on a CPU, 1,048,576 on a GPU)."""

    batch_tokens: Annotated[int | Literal["auto"], tyro.conf.arg(metavar="INT|auto")] = "auto"
    """Positions in one forward pass (auto: 2,048 on a CPU; on a GPU what its memory holds, found once and kept)."""

    document_bytes: int = 64 << 20
    """Longer documents are set aside."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    device_map: Annotated[str | None, tyro.conf.arg(metavar="auto|JSON")] = None
    """Spread a teacher that fits no single device: a rule of transformers, or a JSON object of module to device."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the teacher's forward pass (auto: float32 on a CPU, bfloat16 on a GPU)."""

    threads: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """CPU threads of each worker (default: all cores, shared between workers)."""

    workers: int = 1
    """Worker processes on this machine."""

    runner: str = "local"
    """local (processes of this machine), dask, portable, flink, spark or dataflow: see docs/clusters.md."""

    dask_scheduler: str | None = None
    """Address of the Dask scheduler, tcp://HOST:PORT."""

    job_endpoint: str | None = None
    """Address of a Beam job service, HOST:PORT (`portable`, `flink`, `spark`)."""

    environment_type: Literal["EXTERNAL", "DOCKER", "PROCESS"] | None = None
    """How the cluster starts Beam's Python workers (`portable`, `flink`, `spark`)."""

    environment_config: str | None = None
    """What that needs: the address of a worker pool, an image, or a JSON object with a command."""

    runner_option: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE"), tyro.conf.UseAppendAction] = ()
    """An option of Beam for the cluster, such as flink_master=HOST:8081; may be given several times."""

    attempts: int = 3
    """How often in a row the job may fail with no unit finished in between; finished units are never done twice."""

    unit_attempts: int = 3
    """After so many workers have died of a unit, it is set aside and the rest goes on."""

    unit_timeout: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """End a worker whose unit makes no progress for so long (longer than loading the teacher takes; default: never)."""

    retry_set_aside: bool = False
    """Try units again that were set aside because workers died of them."""

    heartbeat: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Append progress to this file as lines of JSON."""

    heartbeat_seconds: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 10.0
    """Between two such lines."""

    prometheus: Annotated[str | None, tyro.conf.arg(metavar="[HOST:]PORT")] = None
    """Serve progress to Prometheus while the job runs (of this machine only, unless a host is given)."""

    def runner_settings(self) -> RunnerSettings:
        """Where the stages run.

        Raises:
            UsageError: It cannot be meant, or Beam would get it wrong without a word.
        """
        return RunnerSettings(
            name=self.runner,
            num_workers=self.workers,
            dask_scheduler=self.dask_scheduler,
            job_endpoint=self.job_endpoint,
            environment_type=self.environment_type,
            environment_config=self.environment_config,
            options=self.runner_option,
            device=self.device,
            num_threads=self.threads,
            urls=(*self.corpus, self.out),
        )

    def check(self) -> None:
        """Raises UsageError for values that cannot be meant."""
        faults = [
            (not self.corpus, "give at least one corpus file, directory or glob"),
            (self.window < 2, f"--window must be at least 2, got {self.window}"),
            (not 0 <= self.overlap < self.window, f"--overlap must be in [0, {self.window}), got {self.overlap}"),
            (not 0 <= self.held_out < 1, f"--held-out is a share in [0, 1), got {self.held_out}"),
            (self.document_bytes < 1, f"--document-bytes must be positive, got {self.document_bytes}"),
            (not self.heartbeat_seconds > 0, f"--heartbeat-seconds must be positive, got {self.heartbeat_seconds}"),
            (
                self.device_map is not None and self.runner == "local" and self.workers > 1,
                "--device-map spreads one teacher over all devices: use --workers 1",
            ),
            (self.attempts < 1, f"--attempts must be at least 1, got {self.attempts}"),
            (self.unit_attempts < 1, f"--unit-attempts must be at least 1, got {self.unit_attempts}"),
            (
                self.unit_timeout is not None and not self.unit_timeout > 0,
                f"--unit-timeout must be positive, got {self.unit_timeout}",
            ),
            (_below(self.threads, 1), f"--threads must be at least 1, got {self.threads}"),
            (
                self.batch_tokens != "auto" and self.batch_tokens < 1,
                f"--batch-tokens must be positive or auto, got {self.batch_tokens}",
            ),
            (
                _below(self.shard_tokens, self.window),
                f"--shard-tokens must hold at least one window of {self.window}, got {self.shard_tokens}",
            ),
        ]
        for is_fault, message in faults:
            if is_fault:
                raise UsageError(message)


def _below(value: int | None, minimum: int) -> bool:
    return value is not None and value < minimum
