"""Running one stage on a Beam runner: Beam's own in-process runner by default, a Dask cluster by name.

`DirectRunner` is never used: it tries to download another runner first.
"""

import logging
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.job.utils import dict_to_struct
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipeline.configuration import RunnerSettings

# Beam's multi-processing mode with a worker of ours around Beam's: quiet, and gone when the driver is.
WORKER_COMMAND = f"exec {shlex.quote(sys.executable)} -m pipeline.worker"


def run_stage(
    units: Sequence[Any],
    transform: beam.PTransform,
    settings: RunnerSettings,
    on_worker_death: Callable[[str], None] = lambda _: None,
) -> None:
    """Runs `transform` over all units and waits. What came of it stands in storage, not in a return value.

    Args:
        units: What to do.
        transform: How.
        settings: Where.
        on_worker_death: Told when a local worker process dies. If it dies before it has connected, the runner waits
            for it for ever: the caller has to give up then.

    Raises:
        Exception: Whatever the runner makes of a worker's error or death.
    """
    run = _run_on_dask if settings.name == "dask" else _run_locally
    with _quiet_beam(on_worker_death):
        run(units, transform, settings)


def _run_locally(units: Sequence[Any], transform: beam.PTransform, settings: RunnerSettings) -> None:
    if settings.num_workers == 1:
        runner = fn_runner.FnApiRunner()
    else:
        # Without this the workers' own pipeline options are empty. (Numbers would reach them as floats.)
        provision = beam_provision_api_pb2.ProvisionInfo(
            retrieval_token="unused", pipeline_options=dict_to_struct({"default_sdk_harness_log_level": "CRITICAL"})
        )
        runner = fn_runner.FnApiRunner(
            default_environment=SubprocessSDKEnvironment.from_command_string(WORKER_COMMAND),
            provision_info=fn_runner.ExtendedProvisionInfo(provision),
        )
    options = PipelineOptions.from_dictionary({"direct_num_workers": settings.num_workers})
    _run(units, transform, runner, options)


def _run_on_dask(units: Sequence[Any], transform: beam.PTransform, settings: RunnerSettings) -> None:
    from apache_beam.runners.dask.dask_runner import DaskRunner

    # One unit a partition: Dask re-runs lost partitions whole.
    options = {"dask_client_address": settings.dask_scheduler, "dask_partition_size": 1}
    _run(units, transform, DaskRunner(), PipelineOptions.from_dictionary(options))


def _run(units: Sequence[Any], transform: beam.PTransform, runner: Any, options: PipelineOptions) -> None:
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
def _quiet_beam(on_worker_death: Callable[[str], None]) -> Iterator[None]:
    """Keeps Beam's stack traces and remarks on long bundles off the terminal: errors are reported by the job."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    if not isinstance(threading.excepthook, _ThreadHook):
        threading.excepthook = _ThreadHook(threading.excepthook)
    hook = threading.excepthook
    hook.on_worker_death = on_worker_death
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
        hook.on_worker_death = lambda _: None


class _ThreadHook:
    """Takes what ends Beam's own threads when a worker process dies; all else goes where it went.

    It stays in place after a stage, because such threads may outlive it.
    """

    def __init__(self, otherwise: Callable[[threading.ExceptHookArgs], object]) -> None:
        self.on_worker_death: Callable[[str], None] = lambda _: None
        self._otherwise = otherwise

    def __call__(self, arguments: threading.ExceptHookArgs) -> None:
        # Beam waits for a worker process in a thread of this name, which dies with it.
        if arguments.thread is not None and arguments.thread.name == "run_worker":
            self.on_worker_death(str(arguments.exc_value))
        elif not _passes_through_beam(arguments.exc_traceback):
            self._otherwise(arguments)


def _passes_through_beam(trace: TracebackType | None) -> bool:
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").startswith("apache_beam."):
            return True
        trace = trace.tb_next
    return False
