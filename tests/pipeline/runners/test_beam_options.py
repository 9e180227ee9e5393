"""Beam's options on each runner. For Flink, Spark and Dataflow the tests end here, before they would start."""

from typing import Any

import pytest
from apache_beam.options import pipeline_options as beam

from logitcask.pipeline.runners.beam_options import beam_options, require_known
from logitcask.pipeline.runners.settings import RunnerSettings
from logitcask.schemas.errors import UsageError

ON_CLUSTER = {"device": "cuda", "num_threads": 2}
DATAFLOW_OPTIONS = ("project=p", "region=r", "temp_location=gs://b/t")


def parsed(**settings: Any) -> beam.PipelineOptions:
    return beam.PipelineOptions.from_dictionary(beam_options(RunnerSettings(**ON_CLUSTER, **settings)))


def test_dask_gets_one_unit_in_each_partition() -> None:
    from apache_beam.runners.dask.dask_runner import DaskOptions

    options = parsed(name="dask", dask_scheduler="tcp://h:8786", options=("dask_client_name=me",))
    dask = options.view_as(DaskOptions)
    assert (dask.address, dask.partition_size, dask.name) == ("tcp://h:8786", 1, "me")


def test_a_job_service_gets_its_environment_and_one_worker_per_machine() -> None:
    options = parsed(name="portable", job_endpoint="h:8099", environment_type="DOCKER", environment_config="image:1")
    portable = options.view_as(beam.PortableOptions)
    assert (portable.job_endpoint, portable.environment_type) == ("h:8099", "DOCKER")
    assert (portable.environment_config, int(portable.sdk_worker_parallelism)) == ("image:1", 1)


def test_flink_gets_its_master_and_jar_and_unknown_options() -> None:
    master = ("flink_master=h:8081", "flink_job_server_jar=/jars/flink.jar", "parallelism=4")
    options = parsed(name="flink", options=master, environment_type="DOCKER", environment_config="image:1")
    flink = options.view_as(beam.FlinkRunnerOptions)
    assert (flink.flink_master, flink.flink_job_server_jar) == ("h:8081", "/jars/flink.jar")
    assert options.get_all_options(retain_unknown_options=True)["parallelism"] in (4, "4")
    assert options.view_as(beam.PortableOptions).environment_config == "image:1"


def test_spark_gets_its_master_and_jar() -> None:
    options = parsed(name="spark", options=("spark_master_url=spark://h:7077", "spark_job_server_jar=/jars/spark.jar"))
    spark = options.view_as(beam.SparkRunnerOptions)
    assert (spark.spark_master_url, spark.spark_job_server_jar) == ("spark://h:7077", "/jars/spark.jar")


def test_dataflow_gets_one_teacher_per_machine_and_the_users_options() -> None:
    asked = ("experiments=a,b", "dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1")
    options = parsed(name="dataflow", options=(*DATAFLOW_OPTIONS, *asked))
    assert options.view_as(beam.DebugOptions).experiments == ["a", "b", "no_use_multiple_sdk_containers"]
    assert options.view_as(beam.DebugOptions).number_of_worker_harness_threads == 1
    cloud = options.view_as(beam.GoogleCloudOptions)
    assert (cloud.project, cloud.region, cloud.temp_location) == ("p", "r", "gs://b/t")
    assert cloud.dataflow_service_options == ["worker_accelerator=type:nvidia-l4;count:1"]


def test_switches_are_booleans_and_repeated_options_are_lists() -> None:
    more = ("use_public_ips=false", "extra_package=a.whl", "extra_package=b.whl", "enable_streaming_engine")
    options = parsed(name="dataflow", options=(*DATAFLOW_OPTIONS, *more))
    assert options.view_as(beam.WorkerOptions).use_public_ips is False
    assert options.view_as(beam.SetupOptions).extra_packages == ["a.whl", "b.whl"]
    assert options.view_as(beam.GoogleCloudOptions).enable_streaming_engine is True


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_option_that_beam_would_silently_drop_is_refused() -> None:
    settings = RunnerSettings(**ON_CLUSTER, name="dataflow", options=(*DATAFLOW_OPTIONS, "machine_tipe=g2"))
    with pytest.raises(UsageError, match="machine_tipe: Beam has no such option for dataflow"):
        require_known(beam_options(settings), "dataflow")
    right = RunnerSettings(**ON_CLUSTER, name="dataflow", options=(*DATAFLOW_OPTIONS, "machine_type=g2"))
    require_known(beam_options(right), "dataflow")
