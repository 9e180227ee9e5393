"""Errors that a runner quotes keep their class and message."""

import pytest

from logitcask.pipeline.runners.quoted_errors import quoted_error
from logitcask.schemas.errors import ClusterError, CorruptShardError


@pytest.mark.parametrize("suffix", ["", " [while running 'AnnotateUnit-ptransform-12']"])
def test_the_last_error_of_this_project_is_found(suffix: str) -> None:
    text = f"""Traceback (most recent call last):
logitcask.schemas.errors.StorageError: first
RuntimeError: logitcask.schemas.errors.CorruptShardError: s3://b/a.parquet: torn{suffix}
"""
    error = quoted_error(text)
    assert isinstance(error, CorruptShardError)
    assert str(error) == "s3://b/a.parquet: torn"


def test_a_worker_without_logitcask_is_named() -> None:
    error = quoted_error("ModuleNotFoundError: No module named 'logitcask.pipeline'")
    assert isinstance(error, ClusterError)
    assert "a worker cannot import logitcask (No module named 'logitcask" in str(error)


def test_other_text_has_no_error_of_this_project() -> None:
    assert quoted_error("ValueError: schemas") is None
    assert quoted_error("logitcask.schemas.errors.NoSuchError: x") is None
