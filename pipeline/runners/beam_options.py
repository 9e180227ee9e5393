"""Beam's options on each runner: the ones that correctness requires, and the user's."""

from typing import Any

from logitcask.pipeline.runners.settings import RunnerSettings
from logitcask.schemas.errors import UsageError

# One teacher on each virtual machine: otherwise Dataflow starts a Python process for every vCPU, each with a teacher.
_ONE_CONTAINER = "no_use_multiple_sdk_containers"


def beam_options(settings: RunnerSettings) -> dict[str, Any]:
    """The argument of `PipelineOptions.from_dictionary`; `settings` are valid by construction."""
    user = {name: _value(values) for name, values in settings.option_values().items()}
    if settings.name == "local":
        return {"direct_num_workers": settings.num_workers}
    if settings.name == "dask":
        # One unit in each partition: Dask recomputes a lost partition as a whole.
        return user | {"dask_client_address": settings.dask_scheduler, "dask_partition_size": 1}
    if settings.name == "dataflow":
        experiments = [one for value in settings.option_values().get("experiments", []) for one in value.split(",")]
        ours = {"experiments": [*experiments, _ONE_CONTAINER], "number_of_worker_harness_threads": 1}
        return user | ours
    ours = {
        "job_endpoint": settings.job_endpoint,
        "environment_type": settings.environment_type,
        "environment_config": settings.environment_config,
    }
    # One Python process on each worker machine by default: each loads a teacher.
    return {"sdk_worker_parallelism": 1} | user | {name: value for name, value in ours.items() if value is not None}


def require_known(options: dict[str, Any], runner: str) -> None:
    """Refuses options unknown to Beam, which would silently drop them.

    Not for job services, which have options that only they know.

    Raises:
        UsageError: An option is unknown; the message names it.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    parsed = PipelineOptions.from_dictionary(options)
    known = parsed.get_all_options(retain_unknown_options=False)
    unknown = sorted(parsed.get_all_options(retain_unknown_options=True).keys() - known.keys())
    if unknown:
        raise UsageError(f"--runner-option {unknown[0]}: Beam has no such option for {runner}")


def _value(values: list[str]) -> Any:
    """Switches as booleans, repeated options as a list."""
    if len(values) > 1:
        return values
    return {"true": True, "false": False}.get(values[0].lower(), values[0])
