"""The configuration file: it claims a directory once, and other contents are left alone."""

import pytest
from edited_json import edit_json

from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.layout import Configuration, read_configuration, record_path, shard_path
from logitcask.schemas.dataset.layout import write_configuration as write
from logitcask.schemas.errors import ForeignOutputError, UnknownFormatVersionError


@pytest.fixture
def out(tmp_path) -> str:
    return str(tmp_path / "out")


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(ForeignOutputError, match=r"thesis\.tex"):
        read_configuration(str(tmp_path))


def test_an_empty_directory_may_become_a_dataset(out):
    assert read_configuration(out) is None
    assert write(out, identity=Identity(window_tokens=1), environment={})
    assert not write(out, identity=Identity(window_tokens=2), environment={})
    assert read_configuration(out) == Configuration(identity=Identity(window_tokens=1), environment={})


def test_a_configuration_of_a_later_version_is_refused(out, tmp_path):
    write(out, identity=Identity(), environment={})
    edit_json(tmp_path / "out/logitcask.json", lambda value: value.update(dataset_version=3))
    with pytest.raises(UnknownFormatVersionError, match="dataset version 3; this release reads up to 2"):
        read_configuration(out)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"dataset_version": 1}', '{"dataset_version": 1, "identity": []}'])
def test_a_file_that_is_not_a_configuration_is_refused(tmp_path, text):
    (tmp_path / "logitcask.json").write_text(text)
    with pytest.raises(ForeignOutputError, match=r"logitcask\.json: not"):
        read_configuration(str(tmp_path))


def test_a_record_is_next_to_its_shard():
    assert shard_path("targets", "train", "a") == "targets/train/a.parquet"
    assert record_path("targets", "train", "a") == "targets/train/a.json"
