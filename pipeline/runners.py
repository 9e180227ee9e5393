"""Running one stage on a Beam runner: Beam's own in-process runner by default, a Dask cluster by name.

`DirectRunner` is never used: it tries to download another runner first.
"""

import logging
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.job.utils import dict_to_struct
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from schemas.errors import UsageError

# Beam's multi-processing mode with a worker of ours around Beam's: quiet, and gone when the driver is.
WORKER_COMMAND = f"exec {shlex.quote(sys.executable)} -m pipeline.worker"
SUPPORTED_RUNNERS = ("local", "dask")


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
            raise UsageError(
                f"--runner {self.name}: not supported yet; choose one of {', '.join(SUPPORTED_RUNNERS)}"
            )
        if self.num_workers < 1:
            raise UsageError(f"--workers must be at least 1, got {self.num_workers}")
        if self.name == "dask" and self.dask_scheduler is None:
            raise UsageError("--runner dask needs --dask-scheduler tcp://HOST:PORT")
        if self.name != "dask" and self.dask_scheduler is not None:
            raise UsageError("--dask-scheduler is only of use with --runner dask")
        if self.name == "dask" and self.num_workers != 1:
            raise UsageError("--workers is of the local runner; a Dask cluster has the workers it was started with")


def run_stage(units: Sequence[Any], transform: beam.PTransform, settings: RunnerSettings) -> None:
    """Runs `transform` over all units and waits. What came of it stands in storage, not in a return value.

    Raises:
        Exception: Whatever the runner makes of a worker's error or death.
    """
    run = _run_on_dask if settings.name == "dask" else _run_locally
    with _quiet_beam():
        run(units, transform, settings)


def _run_locally(units: Sequence[Any], transform: beam.PTransform, settings: RunnerSettings) -> None:
    if settings.num_workers == 1:
        runner = fn_runner.FnApiRunner()
        options = {"direct_num_workers": 1, "direct_running_mode": "in_memory"}
    else:
        options = {
            "direct_num_workers": settings.num_workers,
            "default_sdk_harness_log_level": "CRITICAL",
        }
        # Without this the workers' own pipeline options are empty.
        provision = beam_provision_api_pb2.ProvisionInfo(
            retrieval_token="unused", pipeline_options=dict_to_struct(options)
        )
        runner = fn_runner.FnApiRunner(
            default_environment=SubprocessSDKEnvironment.from_command_string(WORKER_COMMAND),
            provision_info=fn_runner.ExtendedProvisionInfo(provision),
        )
    _run(units, transform, runner, PipelineOptions.from_dictionary(options))


def _run_on_dask(units: Sequence[Any], transform: beam.PTransform, settings: RunnerSettings) -> None:
    from apache_beam.runners.dask.dask_runner import DaskRunner

    # One unit a partition: Dask re-runs lost partitions whole.
    options = {"dask_client_address": settings.dask_scheduler, "dask_partition_size": 1}
    _run(units, transform, DaskRunner(), PipelineOptions.from_dictionary(options))


def _run(
    units: Sequence[Any], transform: beam.PTransform, runner: Any, options: PipelineOptions
) -> None:
    pipeline = beam.Pipeline(runner=runner, options=options)
    _ = pipeline | "Units" >> beam.Create(list(units), reshuffle=False) | transform
    result = pipeline.run()
    try:
        result.wait_until_finish()
    finally:
        client = getattr(result, "client", None)
        if client is not None:
            client.close()


@contextmanager
def _quiet_beam() -> Iterator[None]:
    """Keeps Beam's stack traces and remarks on long bundles off the terminal: errors are reported by the job."""
    logger, excepthook = logging.getLogger("apache_beam"), threading.excepthook
    level = logger.level

    def without_dead_workers(arguments: threading.ExceptHookArgs) -> None:
        # The thread that waits for a worker process dies with it; the stage's own error tells of it.
        if arguments.thread is None or arguments.thread.name != "run_worker":
            excepthook(arguments)

    logger.setLevel(logging.CRITICAL + 1)
    threading.excepthook = without_dead_workers
    try:
        yield
    finally:
        logger.setLevel(level)
        threading.excepthook = excepthook
