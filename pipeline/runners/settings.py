"""Where the stages of a job run, and what of it cannot be meant. Light: importing this costs nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

from logitcask.schemas.errors import UsageError
from logitcask.schemas.redaction import has_credentials, redact

CLUSTER_RUNNERS = ("dask", "portable", "flink", "spark", "dataflow")
SUPPORTED_RUNNERS = ("local", *CLUSTER_RUNNERS)

# What a user may know from Beam, and why it is not offered.
_REFUSED_RUNNERS = {
    "direct": "Beam's DirectRunner downloads another runner first; use --runner local",
    "directrunner": "Beam's DirectRunner downloads another runner first; use --runner local",
    "prism": "Beam downloads Prism when it is first used; use --runner local",
    "interactive": "a job is no notebook; use --runner local",
}

_OF_PORTABLE = ("portable", "flink", "spark")

# Options of Beam that this project sets itself, or that would go wrong without a word. True: whatever the value.
_OWN_OPTIONS = {
    "runner": "named by --runner",
    "job_endpoint": "named by --job-endpoint",
    "environment_type": "named by --environment-type",
    "environment_config": "named by --environment-config",
    "dask_client_address": "named by --dask-scheduler",
    "dask_partition_size": "always 1, because Dask does a lost partition again as a whole",
    "dask_npartitions": "Dask does a lost partition again as a whole, so each unit is a partition of its own",
    "streaming": "the corpus is bounded, and streaming runners may hold a unit's result back",
    "save_main_session": "would pickle whatever the driver's main module holds; workers import logitcask themselves",
    "number_of_worker_harness_threads": "always 1: every further thread would run a unit of its own on the same model",
    "direct_num_workers": "named by --workers",
    "direct_running_mode": "follows from --workers",
}

_REQUIRED_OPTIONS = {
    "flink": {"flink_master": "HOST:PORT of the Flink REST endpoint; else Beam starts a Flink of its own on this host"},
    "spark": {"spark_master_url": "spark://HOST:PORT; else Beam starts a Spark of its own on this host"},
    "dataflow": {
        "project": "the Google Cloud project",
        "region": "the Google Cloud region",
        "temp_location": "a gs:// directory for Dataflow's own files",
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerSettings:
    """Where a stage runs.

    Attributes:
        name: One of `SUPPORTED_RUNNERS`.
        num_workers: Processes of the local runner; with one, units run in this process.
        dask_scheduler: Address of a Dask scheduler, `tcp://host:port`.
        job_endpoint: Address of a Beam job service, `host:port`.
        environment_type: How a portable runner starts its workers: EXTERNAL, DOCKER or PROCESS.
        environment_config: What that way needs: an address, an image, or a JSON object.
        options: Further options of Beam, `key=value`; a key may stand several times.
        device: Where the teacher runs on a worker: "cpu", "cuda" or "cuda:1"; "auto" on the local runner only.
        num_threads: CPU threads of each worker; None on the local runner only, where the cores are shared out.
        urls: Corpus and output, as workers will open them.

    Raises:
        UsageError: It cannot be meant, or Beam would get it wrong without a word.
    """

    name: str = "local"
    num_workers: int = 1
    dask_scheduler: str | None = None
    job_endpoint: str | None = None
    environment_type: str | None = None
    environment_config: str | None = None
    options: tuple[str, ...] = ()
    device: str = "auto"
    num_threads: int | None = None
    urls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for fault in (*self._misnamed(), *self._misplaced(), *self._missing(), *self._misled(), *self._unreachable()):
            raise UsageError(fault)

    @property
    def is_cluster(self) -> bool:
        """Whether workers may be on other machines."""
        return self.name in CLUSTER_RUNNERS

    def option_values(self) -> dict[str, list[str]]:
        """Values of Beam's options by name, in order."""
        values: dict[str, list[str]] = {}
        for option in self.options:
            key, _, value = option.partition("=")
            values.setdefault(key.strip().lstrip("-").replace("-", "_"), []).append(value or "true")
        return values

    def _misnamed(self) -> Iterator[str]:
        if self.name not in SUPPORTED_RUNNERS:
            reason = _REFUSED_RUNNERS.get(self.name.lower(), f"choose one of {', '.join(SUPPORTED_RUNNERS)}")
            yield f"--runner {self.name}: {reason}"
        if self.num_workers < 1:
            yield f"--workers must be at least 1, got {self.num_workers}"

    def _misplaced(self) -> Iterator[str]:
        """Settings of another runner than the one that was named."""
        if self.dask_scheduler is not None and self.name != "dask":
            yield "--dask-scheduler is only of use with --runner dask"
        if self.job_endpoint is not None and self.name not in _OF_PORTABLE:
            yield "--job-endpoint is only of use with --runner portable, flink or spark"
        if (self.environment_type or self.environment_config) and self.name not in _OF_PORTABLE:
            yield "--environment-type and --environment-config are only of use with --runner portable, flink or spark"
        if self.options and not self.is_cluster:
            yield "--runner-option is only of use on a cluster; the local runner is set by --workers and --threads"
        if self.num_workers != 1 and self.is_cluster:
            yield f"--workers is of the local runner; on {self.name} the cluster decides how many workers there are"

    def _missing(self) -> Iterator[str]:
        if self.name == "dask" and self.dask_scheduler is None:
            yield "--runner dask needs --dask-scheduler tcp://HOST:PORT"
        if self.name == "portable" and self.job_endpoint is None:
            yield "--runner portable needs --job-endpoint HOST:PORT, where a Beam job service listens"
        given = self.option_values()
        if self.job_endpoint is None:
            for option, meaning in _REQUIRED_OPTIONS.get(self.name, {}).items():
                if option not in given:
                    yield f"--runner {self.name} needs --runner-option {option}=…: {meaning}"
        if self.environment_type in ("EXTERNAL", "PROCESS") and self.environment_config is None:
            yield f"--environment-type {self.environment_type} needs --environment-config: where or how workers start"
        if self.is_cluster and self.device == "auto":
            yield f"--runner {self.name} needs --device cpu or cuda: this host cannot see what the workers have"
        if self.is_cluster and self.num_threads is None:
            yield f"--runner {self.name} needs --threads N, threads of each worker: this host cannot see their cores"

    def _misled(self) -> Iterator[str]:
        """Options that Beam would take and then do something else."""
        given = self.option_values()
        for option in given.keys() & _OWN_OPTIONS.keys():
            yield f"--runner-option {option}: {_OWN_OPTIONS[option]}"
        if "use_multiple_sdk_containers" in ",".join(given.get("experiments", [])).split(","):
            yield "--runner-option experiments=use_multiple_sdk_containers: a teacher would be loaded for every vCPU"
        if self.device.startswith("cuda") and given.get("sdk_worker_parallelism", ["1"]) != ["1"]:
            yield "--runner-option sdk_worker_parallelism: several workers, each with a teacher, would share one GPU"

    def _unreachable(self) -> Iterator[str]:
        """URLs that workers could not open, or that would tell secrets on the way."""
        for url in self.urls:
            if "memory://" in url and (self.is_cluster or self.num_workers > 1):
                yield f"{redact(url)}: memory:// lives in this process only; use --runner local with one worker"
            if self.is_cluster and has_credentials(url):
                yield (
                    "a URL holds a user, a password or a signature, which a cluster would store and log with the job; "
                    "give credentials to the workers' environment (AWS_ACCESS_KEY_ID, FSSPEC_… and so on) instead"
                )
