"""Where the stages of a job run, and which settings are invalid. Imports nothing heavy."""

from collections.abc import Iterator
from dataclasses import dataclass

from logitcask.schemas.errors import UsageError
from logitcask.schemas.redaction import has_credentials, redact

CLUSTER_RUNNERS = ("dask", "portable", "flink", "spark", "dataflow")
SUPPORTED_RUNNERS = ("local", *CLUSTER_RUNNERS)

# Beam's runners that are not supported, and why.
_REFUSED_RUNNERS = {
    "direct": "Beam's DirectRunner downloads another runner first; use --runner local",
    "directrunner": "Beam's DirectRunner downloads another runner first; use --runner local",
    "prism": "Beam downloads Prism when it is first used; use --runner local",
    "interactive": "it is for notebooks; use --runner local",
}

_OF_PORTABLE = ("portable", "flink", "spark")

# Options of Beam that this project sets itself, or that would silently give wrong results, whatever their value.
_OWN_OPTIONS = {
    "runner": "set by --runner",
    "job_endpoint": "set by --job-endpoint",
    "environment_type": "set by --environment-type",
    "environment_config": "set by --environment-config",
    "dask_client_address": "set by --dask-scheduler",
    "dask_partition_size": "always 1, because Dask recomputes a lost partition as a whole",
    "dask_npartitions": "each unit is a partition, because Dask recomputes a lost partition as a whole",
    "streaming": "the corpus is bounded, and streaming runners may delay a unit's result",
    "save_main_session": "would pickle the driver's main module; workers import logitcask themselves",
    "number_of_worker_harness_threads": "always 1: each further thread would run another unit on the same model",
    "direct_num_workers": "set by --workers",
    "direct_running_mode": "set by --workers",
}

_REQUIRED_OPTIONS = {
    "flink": {"flink_master": "HOST:PORT of the Flink REST endpoint; otherwise Beam starts Flink on this host"},
    "spark": {"spark_master_url": "spark://HOST:PORT; otherwise Beam starts Spark on this host"},
    "dataflow": {
        "project": "the Google Cloud project",
        "region": "the Google Cloud region",
        "temp_location": "a gs:// directory for Dataflow's temporary files",
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerSettings:
    """Where a stage runs.

    Attributes:
        name: One of `SUPPORTED_RUNNERS`.
        num_workers: Processes of the local runner; with one, units run in this process (see `spares_driver`).
        dask_scheduler: Address of a Dask scheduler, `tcp://host:port`.
        job_endpoint: Address of a Beam job service, `host:port`.
        environment_type: How a portable runner starts its workers: EXTERNAL, DOCKER or PROCESS.
        environment_config: Configuration of that type: an address, an image, or a JSON object.
        options: Further options of Beam, `key=value`; a key may occur several times.
        device: Where the teacher runs on a worker: "cpu", "cuda" or "cuda:1"; "auto" on the local runner only.
        num_threads: CPU threads of each worker; None on the local runner only, which divides the cores.
        urls: Corpus and output, as workers will open them.
        spares_driver: Whether the local runner's only worker is a process of its own too: a unit may kill it.

    Raises:
        UsageError: A setting is invalid, or Beam would silently misinterpret it.
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
    spares_driver: bool = False

    def __post_init__(self) -> None:
        for fault in (
            *self._misnamed(),
            *self._misplaced(),
            *self._missing(),
            *self._misleading(),
            *self._unreachable(),
        ):
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
        """Settings of another runner than the chosen one."""
        if self.dask_scheduler is not None and self.name != "dask":
            yield "--dask-scheduler requires --runner dask"
        if self.job_endpoint is not None and self.name not in _OF_PORTABLE:
            yield "--job-endpoint requires --runner portable, flink or spark"
        if (self.environment_type or self.environment_config) and self.name not in _OF_PORTABLE:
            yield "--environment-type and --environment-config require --runner portable, flink or spark"
        if self.options and not self.is_cluster:
            yield "--runner-option requires a cluster; configure the local runner with --workers and --threads"
        if self.num_workers != 1 and self.is_cluster:
            yield f"--workers requires --runner local; on {self.name} the cluster sets the number of workers"

    def _missing(self) -> Iterator[str]:
        if self.name == "dask" and self.dask_scheduler is None:
            yield "--runner dask needs --dask-scheduler tcp://HOST:PORT"
        if self.name == "portable" and self.job_endpoint is None:
            yield "--runner portable needs --job-endpoint HOST:PORT, the address of a Beam job service"
        given = self.option_values()
        if self.job_endpoint is None:
            for option, meaning in _REQUIRED_OPTIONS.get(self.name, {}).items():
                if option not in given:
                    yield f"--runner {self.name} needs --runner-option {option}=…: {meaning}"
        if self.environment_type in ("EXTERNAL", "PROCESS") and self.environment_config is None:
            yield f"--environment-type {self.environment_type} needs --environment-config: where or how workers start"
        if self.is_cluster and self.device == "auto":
            yield f"--runner {self.name} needs --device cpu or cuda: this host cannot see the workers' devices"
        if self.is_cluster and self.num_threads is None:
            yield f"--runner {self.name} needs --threads N, threads of each worker: this host cannot see their cores"

    def _misleading(self) -> Iterator[str]:
        """Options that Beam would accept and then misinterpret."""
        given = self.option_values()
        for option in given.keys() & _OWN_OPTIONS.keys():
            yield f"--runner-option {option}: {_OWN_OPTIONS[option]}"
        if "use_multiple_sdk_containers" in ",".join(given.get("experiments", [])).split(","):
            yield "--runner-option experiments=use_multiple_sdk_containers: each vCPU would load a teacher"
        if self.device.startswith("cuda") and given.get("sdk_worker_parallelism", ["1"]) != ["1"]:
            yield "--runner-option sdk_worker_parallelism: several workers, each with a teacher, would share one GPU"

    def _unreachable(self) -> Iterator[str]:
        """URLs that workers could not open, or that would expose credentials."""
        for url in self.urls:
            if "memory://" in url and (self.is_cluster or self.num_workers > 1):
                yield f"{redact(url)}: memory:// exists in this process only; use --runner local with one worker"
            if self.is_cluster and has_credentials(url):
                yield (
                    "a URL contains a user, a password or a signature, which a cluster would store and log with the "
                    "job; put credentials into the workers' environment instead (AWS_ACCESS_KEY_ID, FSSPEC_…)"
                )
