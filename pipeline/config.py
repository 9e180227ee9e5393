"""Settings of an annotation job, as the user gives them. Imports nothing heavy."""

import re
from dataclasses import dataclass
from datetime import date
from typing import Annotated, ClassVar, Literal

import tyro

from logitcask.pipeline.runners.settings import RunnerSettings
from logitcask.schemas.dataset.identity import ChatSplit
from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.scheme import Layout, SchemeKind

_NUMBERS = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="T,T",
    instance_from_str=lambda words: tuple(float(number) for number in words[0].split(",") if number),
    is_instance=lambda value: isinstance(value, tuple) and all(isinstance(number, float) for number in value),
    str_from_instance=lambda numbers: [",".join(f"{number:g}" for number in numbers)],
)
_SECONDS = {"s": 1, "min": 60, "h": 3600}


def seconds(text: str) -> float:
    """The seconds that `90`, `90s`, `30min` or `1.5h` stand for. Raises ValueError for other text."""
    match = re.fullmatch(r"([\d.]+) ?(s|min|h|)", text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write 90s, 30min or 2h")
    return float(match[1]) * _SECONDS.get(match[2], 1)


_DURATION = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="90s|30min|2h",
    instance_from_str=lambda words: seconds(words[0]),
    is_instance=lambda value: value is None or isinstance(value, float),
    str_from_instance=lambda value: ["never" if value is None else f"{value:g}s"],
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotateConfig:
    """Settings of an annotation job; defaults are those of the command line."""

    old_names: ClassVar = {"corpus_licence": "corpus_license", "retry_set_aside": "retry_quarantined"}

    corpus: tyro.conf.Positional[tuple[str, ...]]
    """Files, directories or globs, on any fsspec URL: text, JSON, CSV (also .gz, .zst), Parquet, Arrow."""

    teacher: str
    """Directory, hub id or .gguf file of the model that annotates."""

    out: str
    """Directory of the dataset: a path or any fsspec URL. The same command resumes an interrupted job."""

    tokenizer: str | None = None
    """A tokenizer other than the teacher's: a directory, hub id, .gguf or SentencePiece .model."""

    text_field: str = "text"
    """Field of records that holds the text."""

    chat_field: str | None = None
    """Field of records with chat messages, instead of text; only the assistant's tokens get targets."""

    chat_split: ChatSplit = "auto"
    """A document for each answer of a chat, with the turns before it (auto: where the template rewrites them)."""

    chat_date: str | None = None
    """The day, YYYY-MM-DD, for a chat template that asks (default: the day on which the dataset is begun)."""

    parse_special: bool = False
    """Read the spelling of a control token in the corpus, such as <|im_end|>, as this token, not as letters."""

    window: int = 1024
    """Maximum positions of a window."""

    overlap: int = 0
    """Positions of a long document repeated as context at the start of its next window."""

    head: SchemeKind = "threshold"
    """What is stored: p ≥ tau, the k largest, the largest with mass ≥ p, draws only, or p ≥ theta and draws."""

    tau: float = 1e-3
    """Probability threshold of `threshold`."""

    k: int = 128
    """Maximum entries of a head."""

    k_min: int = 1
    """Minimum entries of a head (`threshold`)."""

    p: float = 0.95
    """Probability mass of `topp`."""

    draws: int = 50
    """Draws at each position (`random-sampling`)."""

    theta: float = 1 / 36
    """Probability threshold of `threshold-sampling`, and about the mass that one draw represents."""

    replicas: int = 1
    """Independent samples of each position, so that epochs can use different ones (sampling schemes)."""

    temperatures: Annotated[tuple[float, ...], _NUMBERS] = ()
    """Additional temperatures at which a student can be trained exactly: 2 or 2,4 (not with sampling schemes)."""

    held_out: float = 0.01
    """Share of documents kept for evaluation."""

    entropy: bool = True
    """Store the entropy of the full distribution at every position."""

    layout: Layout = "plain"
    """How ids are stored: `plain`, or `compact`: an eighth smaller, slower to read, hard to read for other tools."""

    append: bool = False
    """Add what is new in the corpus to a finished dataset, as a new snapshot; other settings must be the dataset's."""

    allow_duplicates: bool = False
    """With --append: also annotate documents that the dataset has already."""

    corpus_license: str | None = None
    """License of the text; stored in the shards."""

    shard_tokens: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Maximum positions of a shard (default: 32,768 on a CPU, 1,048,576 on a GPU)."""

    batch_tokens: Annotated[int | Literal["auto"], tyro.conf.arg(metavar="INT|auto")] = "auto"
    """Positions in one forward pass (auto: 2,048 on a CPU; on a GPU what fits its memory, measured once and kept)."""

    document_bytes: int = 64 << 20
    """Maximum size of a document; longer ones are rejected."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    device_map: Annotated[str | None, tyro.conf.arg(metavar="auto|JSON")] = None
    """Spread a teacher over several devices: a rule of transformers, or a JSON object of module to device."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the teacher's forward pass (auto: float32 on a CPU, bfloat16 on a GPU)."""

    threads: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """CPU threads of each worker (default: all cores, divided among the workers)."""

    workers: int = 1
    """Worker processes on this machine."""

    runner: str = "local"
    """Where units run: local (this machine), dask, portable, flink, spark or dataflow; see docs/clusters.md."""

    dask_scheduler: str | None = None
    """Address of the Dask scheduler, tcp://HOST:PORT (`dask`)."""

    job_endpoint: str | None = None
    """Address of a Beam job service, HOST:PORT (`portable`, `flink`, `spark`)."""

    environment_type: Literal["EXTERNAL", "DOCKER", "PROCESS"] | None = None
    """How the cluster starts Beam's Python workers (`portable`, `flink`, `spark`)."""

    environment_config: str | None = None
    """Its configuration: the address of a worker pool, an image, or a JSON object with a command."""

    runner_option: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE"), tyro.conf.UseAppendAction] = ()
    """A Beam option for the cluster, such as flink_master=HOST:8081; can be repeated."""

    attempts: int = 3
    """How many times in a row the job may fail without finishing a unit; finished units are never repeated."""

    unit_attempts: int = 3
    """A unit that this many workers died of is quarantined; the other units continue."""

    unit_timeout: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """End a worker whose unit makes no progress for this long; must exceed the teacher's load time (default: never)."""

    retry_quarantined: bool = False
    """Retry quarantined units."""

    verify: bool = False
    """Compare every byte of the finished dataset with its digests, as `logitcask verify` does. Without it, only sizes
    and footers of finished shards are compared."""

    publish_every: Annotated[float | None, _DURATION] = None
    """Publish a snapshot of what is finished at this interval; `train --allow-partial` reads it."""

    store_timeout: Annotated[float, _DURATION] = 1800.0
    """Wait this long for a store that is away during the job; an outage that ends in time costs no attempt."""

    heartbeat: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Append progress to this local file as lines of JSON."""

    heartbeat_seconds: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 10.0
    """Interval between these lines."""

    prometheus: Annotated[str | None, tyro.conf.arg(metavar="[HOST:]PORT")] = None
    """Serve progress to Prometheus while the job runs (on the loopback interface unless a host is given)."""

    def runner_settings(self) -> RunnerSettings:
        """Where the stages run.

        Raises:
            UsageError: A setting is invalid, or Beam would silently misinterpret it.
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
        """Raises UsageError for invalid values."""
        faults = [
            (not self.corpus, "give at least one corpus file, directory or glob"),
            (self.window < 2, f"--window must be at least 2, got {self.window}"),
            (not 0 <= self.overlap < self.window, f"--overlap must be in [0, {self.window}), got {self.overlap}"),
            (not 0 <= self.held_out < 1, f"--held-out must be a share in [0, 1), got {self.held_out}"),
            (self.allow_duplicates and not self.append, "--allow-duplicates is for --append"),
            (not _is_date(self.chat_date), f"--chat-date must be YYYY-MM-DD, got {self.chat_date!r}"),
            (self.document_bytes < 1, f"--document-bytes must be positive, got {self.document_bytes}"),
            (not self.heartbeat_seconds > 0, f"--heartbeat-seconds must be positive, got {self.heartbeat_seconds}"),
            (
                self.device_map is not None and self.runner == "local" and self.workers > 1,
                "--device-map spreads one teacher over all devices; use --workers 1",
            ),
            (self.attempts < 1, f"--attempts must be at least 1, got {self.attempts}"),
            (self.unit_attempts < 1, f"--unit-attempts must be at least 1, got {self.unit_attempts}"),
            (
                self.unit_timeout is not None and not self.unit_timeout > 0,
                f"--unit-timeout must be positive, got {self.unit_timeout}",
            ),
            (
                self.publish_every is not None and not self.publish_every > 0,
                f"--publish-every must be positive, got {self.publish_every}",
            ),
            (
                self.publish_every is not None and self.append,
                "--publish-every has no use with --append: readers keep the old snapshot until the corpus is added",
            ),
            (not self.store_timeout >= 0, f"--store-timeout must be at least 0 seconds, got {self.store_timeout}"),
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


def _is_date(text: str | None) -> bool:
    try:
        return text is None or date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _below(value: int | None, minimum: int) -> bool:
    return value is not None and value < minimum
