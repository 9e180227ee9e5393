"""The options that Beam gets on each runner: ours, which keep the job right, and the user's beside them."""

from typing import Any

from logitcask.pipeline.runners.settings import RunnerSettings
from logitcask.schemas.errors import UsageError

# One teacher a virtual machine: Dataflow would otherwise start a Python process for every vCPU, each with its own.
_ONE_CONTAINER = "no_use_multiple_sdk_containers"


def beam_options(settings: RunnerSettings) -> dict[str, Any]:
    """What `PipelineOptions.from_dictionary` is given; `settings` have been checked when they were made."""
    user = {name: _value(values) for name, values in settings.option_values().items()}
    if settings.name == "local":
        return {"direct_num_workers": settings.num_workers}
    if settings.name == "dask":
        # One unit a partition: Dask does a lost partition again as a whole.
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
    # One Python process a worker machine unless told otherwise: each loads a teacher.
    return {"sdk_worker_parallelism": 1} | user | {name: value for name, value in ours.items() if value is not None}


def require_known(options: dict[str, Any], runner: str) -> None:
    """Refuses options that no part of Beam knows, which it would drop without an error.

    Not for job services: theirs are known to them alone.

    Raises:
        UsageError: Names the option.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    parsed = PipelineOptions.from_dictionary(options)
    known = parsed.get_all_options(retain_unknown_options=False)
    unknown = sorted(parsed.get_all_options(retain_unknown_options=True).keys() - known.keys())
    if unknown:
        raise UsageError(f"--runner-option {unknown[0]}: Beam knows no such option for {runner}")


def _value(values: list[str]) -> Any:
    """Switches as booleans, what was given several times as a list."""
    if len(values) > 1:
        return values
    return {"true": True, "false": False}.get(values[0].lower(), values[0])
