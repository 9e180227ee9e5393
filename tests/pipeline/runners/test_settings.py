"""Invalid or misleading runner settings are refused with the reason before anything runs."""

from typing import Any

import pytest

from logitcask.pipeline.commands import Annotate
from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.runners.settings import RunnerSettings
from logitcask.schemas.cli import parse_command
from logitcask.schemas.errors import UsageError

ON_CLUSTER = {"device": "cpu", "num_threads": 2}
DASK = {**ON_CLUSTER, "name": "dask", "dask_scheduler": "tcp://h:8786"}
PORTABLE = {**ON_CLUSTER, "name": "portable", "job_endpoint": "h:8099"}
FLINK = {**ON_CLUSTER, "name": "flink", "options": ("flink_master=h:8081",)}
DATAFLOW_OPTIONS = ("project=p", "region=r", "temp_location=gs://b/t")
DATAFLOW = {**ON_CLUSTER, "name": "dataflow", "options": DATAFLOW_OPTIONS}


@pytest.mark.parametrize("settings", [{}, DASK, PORTABLE, FLINK, DATAFLOW, {**FLINK, "job_endpoint": "h:1"}])
def test_valid_settings_are_accepted(settings: dict[str, Any]) -> None:
    assert RunnerSettings(**settings).is_cluster == bool(settings)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"name": "direct"}, "downloads another runner"),
        ({"name": "DirectRunner"}, "downloads another runner"),
        ({"name": "prism"}, "downloads Prism"),
        ({"name": "ray"}, "choose one of local, dask, portable, flink, spark, dataflow"),
        ({"num_workers": 0}, "--workers must be at least 1"),
        ({**DASK, "dask_scheduler": None}, "needs --dask-scheduler"),
        ({**PORTABLE, "job_endpoint": None}, "needs --job-endpoint"),
        ({**FLINK, "options": ()}, "flink_master=…: .* otherwise Beam starts Flink on this host"),
        ({**FLINK, "name": "spark"}, "spark_master_url=…: .* otherwise Beam starts Spark on this host"),
        ({**DATAFLOW, "options": DATAFLOW_OPTIONS[:2]}, "temp_location=…"),
        ({**PORTABLE, "environment_type": "EXTERNAL"}, "needs --environment-config"),
        ({**DASK, "device": "auto"}, "needs --device cpu or cuda"),
        ({**DASK, "num_threads": None}, "needs --threads N"),
        ({**DASK, "num_workers": 2}, "--workers requires --runner local"),
        ({"dask_scheduler": "tcp://h:1"}, "requires --runner dask"),
        ({**DASK, "job_endpoint": "h:1"}, "--job-endpoint requires --runner portable"),
        ({**DASK, "environment_config": "image"}, "require --runner portable"),
        ({"options": ("streaming",)}, "--runner-option requires a cluster"),
        ({**DASK, "options": ("dask_partition_size=8",)}, "recomputes a lost partition as a whole"),
        ({**DASK, "options": ("--dask-npartitions=8",)}, "recomputes a lost partition as a whole"),
        ({**PORTABLE, "options": ("runner=DirectRunner",)}, "set by --runner"),
        ({**FLINK, "options": ("flink_master=h:1", "streaming=true")}, "the corpus is bounded"),
        ({**PORTABLE, "options": ("save_main_session",)}, "pickle the driver's main module"),
        (
            {**DATAFLOW, "options": (*DATAFLOW_OPTIONS, "number_of_worker_harness_threads=8")},
            "always 1: each further thread",
        ),
        (
            {**DATAFLOW, "options": (*DATAFLOW_OPTIONS, "experiments=a,use_multiple_sdk_containers")},
            "each vCPU would load a teacher",
        ),
        ({**PORTABLE, "device": "cuda", "options": ("sdk_worker_parallelism=4",)}, "share one GPU"),
        ({"num_workers": 2, "urls": ("memory://x",)}, "exists in this process only"),
        ({**DASK, "urls": ("s3://b/x", "simplecache::memory://x")}, "exists in this process only"),
    ],
)
def test_invalid_settings_are_refused_with_the_reason(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        RunnerSettings(**settings)


def test_credentials_in_a_url_are_refused_on_a_cluster_and_not_repeated() -> None:
    url = "https://user:hush@host/corpus.jsonl?sig=hush"
    with pytest.raises(UsageError, match="contains a user, a password or a signature") as caught:
        RunnerSettings(**PORTABLE, urls=(url,))
    assert "hush" not in str(caught.value)
    assert RunnerSettings(urls=(url,), num_workers=4).urls == (url,)


WORDS = ["texts", "--teacher", "t", "--out", "o", "--device", "cpu", "--threads", "1"]


def test_beam_options_are_repeated_flags_or_a_list_in_a_file(tmp_path: Any) -> None:
    (tmp_path / "run.toml").write_text('runner_option = ["flink_master=h:8081", "parallelism=4"]\n')
    words = ["--runner", "flink"]
    flags = ["--runner-option", "flink_master=h:8081", "--runner-option", "parallelism=4"]
    by_flags = parse_command(Annotate, "annotate", [*words, *flags, *WORDS])
    by_file = parse_command(Annotate, "annotate", [*words, "--config", str(tmp_path / "run.toml"), *WORDS])
    assert by_flags == by_file
    assert isinstance(by_flags, AnnotateConfig)
    assert by_flags.runner_settings().option_values() == {"flink_master": ["h:8081"], "parallelism": ["4"]}
