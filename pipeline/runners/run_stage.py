"""Runs one stage on a Beam runner: by default Beam's in-process runner, or a cluster.

`DirectRunner` is never used: it first tries to download another runner.
"""

import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.job.utils import dict_to_struct
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from logitcask.pipeline.runners.beam_options import beam_options, require_known
from logitcask.pipeline.runners.local_workers import worker_command
from logitcask.pipeline.runners.quiet_beam import quiet_beam
from logitcask.pipeline.runners.quoted_errors import quoted_error
from logitcask.pipeline.runners.release import release
from logitcask.pipeline.runners.settings import RunnerSettings
from logitcask.pipeline.units.heartbeats import STOP_FILE
from logitcask.schemas.errors import ClusterError, LogitcaskError, UsageError

_CONNECT_SECONDS = 10.0
# Workers that see the driver's directory stop on request; those of other machines end only with the job.
_DRAIN_SECONDS = 10.0
_STOP_POLL_SECONDS = 0.5


def run_stage(
    units: Sequence[Any],
    transform: Any,
    settings: RunnerSettings,
    on_worker_death: Callable[[str], None] = lambda _: None,
) -> None:
    """Runs `transform` over all units and waits. The result is in storage, not in a return value.

    Args:
        units: The units to do.
        transform: What does them, a `pipeline.execution.transforms.ProcessUnits`.
        settings: Where to run.
        on_worker_death: Called with a message when a local worker process dies. If it dies before it has connected,
            the runner waits for it forever, and the caller must give up.

    Raises:
        LogitcaskError: A worker raised it, or the cluster is unreachable or unsuitable.
        Exception: Any other error that the runner raises after a worker's error or death.
    """
    with quiet_beam(on_worker_death):
        if not settings.is_cluster:
            _run_locally(units, transform, settings)
            return
        transform.release = release()
        try:
            _run_on_cluster(units, transform, settings)
        except LogitcaskError:
            raise
        except Exception as error:
            named = quoted_error(str(error))
            if named is None:
                raise
            raise named from error


def _run_locally(units: Sequence[Any], transform: Any, settings: RunnerSettings) -> None:
    options = PipelineOptions.from_dictionary(beam_options(settings))
    if settings.num_workers == 1 and not settings.spares_driver:
        _run(units, transform, fn_runner.FnApiRunner(), options)
        return
    # Without this the workers' own pipeline options are empty. (Numbers would reach them as floats.)
    provision = beam_provision_api_pb2.ProvisionInfo(
        retrieval_token="unused", pipeline_options=dict_to_struct({"default_sdk_harness_log_level": "CRITICAL"})
    )
    with worker_command() as command:
        # Beam's multi-processing mode with our wrapper around Beam's worker (`pipeline.runners.worker`).
        runner = fn_runner.FnApiRunner(
            default_environment=SubprocessSDKEnvironment.from_command_string(command),
            provision_info=fn_runner.ExtendedProvisionInfo(provision),
        )
        _run(units, transform, runner, options)


def _run_on_cluster(units: Sequence[Any], transform: Any, settings: RunnerSettings) -> None:
    runner = _cluster_runner(settings)
    options = beam_options(settings)
    if settings.name in ("dask", "dataflow"):
        require_known(options, settings.name)
    if settings.job_endpoint is not None:
        require_listening(f"//{settings.job_endpoint}", "--job-endpoint")
    if settings.dask_scheduler is not None:
        from logitcask.pipeline.runners.dask import require_workers

        require_listening(settings.dask_scheduler, "--dask-scheduler")
        require_workers(settings.dask_scheduler, settings.device)
    _run(units, transform, runner, PipelineOptions.from_dictionary(options))


def _cluster_runner(settings: RunnerSettings) -> Any:
    try:
        if settings.name == "dask":
            from apache_beam.runners.dask.dask_runner import DaskRunner

            return DaskRunner()
        if settings.name == "dataflow":
            from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

            return DataflowRunner()
    except ImportError as error:
        extra = {"dask": "dask", "dataflow": "gcp"}[settings.name]
        raise UsageError(
            f"--runner {settings.name} needs `pip install 'apache-beam[{extra}]'` on this host ({error})"
        ) from error
    return _portable_runner(settings)


def _portable_runner(settings: RunnerSettings) -> Any:
    """Beam's client of a job service; for Flink and Spark, one that starts the service if no endpoint is given."""
    from apache_beam.runners.portability.flink_runner import FlinkRunner
    from apache_beam.runners.portability.portable_runner import PortableRunner
    from apache_beam.runners.portability.spark_runner import SparkRunner

    if settings.job_endpoint is not None:
        return PortableRunner()
    if not settings.option_values().get(f"{settings.name}_submit_uber_jar") and shutil.which("java") is None:
        raise UsageError(
            f"--runner {settings.name} starts Beam's job server, a Java program, and this host has no `java`. Install "
            f"Java, or name a running server with --job-endpoint, or add --runner-option "
            f"{settings.name}_submit_uber_jar"
        )
    return FlinkRunner() if settings.name == "flink" else SparkRunner()


def require_listening(url: str, option: str) -> None:
    """Raises ClusterError unless a server listens at `scheme://host:port`: Beam and Dask would wait for minutes."""
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:
        host = port = None
    if host is None or port is None:
        raise ClusterError(f"{option}: {url.removeprefix('//')!r} is not an address; expected HOST:PORT")
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise ClusterError(f"{option}: no server listens at {host}:{port} ({error})") from error


def _run(units: Sequence[Any], transform: Any, runner: Any, options: PipelineOptions) -> None:
    pipeline = beam.Pipeline(runner=runner, options=options)
    _ = pipeline | "Units" >> beam.Create(list(units), reshuffle=False) | transform
    result = pipeline.run()
    try:
        with _cancelled_on_stop(result, transform.heartbeats.directory):
            result.wait_until_finish()
    finally:
        client = getattr(result, "client", None)
        if client is not None:
            client.close()


@contextmanager
def _cancelled_on_stop(result: Any, directory: str | None) -> Iterator[None]:
    """Cancels a job whose workers do not react to the driver's stop request in time."""
    finished = threading.Event()
    watch = threading.Thread(target=_cancel_on_stop, args=(result, directory, finished), daemon=True)
    if directory is not None:
        watch.start()
    try:
        yield
    finally:
        finished.set()


def _cancel_on_stop(result: Any, directory: str, finished: threading.Event) -> None:
    while not finished.wait(_STOP_POLL_SECONDS):
        if (Path(directory) / STOP_FILE).exists():
            if not finished.wait(_DRAIN_SECONDS):
                result.cancel()
            return
