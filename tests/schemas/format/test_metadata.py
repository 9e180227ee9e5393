"""Metadata of a shard survive JSON, and old shards keep their bytes."""

import dataclasses
import json
import subprocess
import sys

import pytest

from logitcask.schemas.errors import UnknownFormatVersionError
from logitcask.schemas.format.metadata import ShardMetadata


@pytest.fixture
def tokens(metadata) -> ShardMetadata:
    return dataclasses.replace(metadata, kind="tokens", teacher=None, scheme=None, has_entropy=False)


def test_metadata_survive_json(metadata, tokens):
    for one in (metadata, tokens, dataclasses.replace(metadata, layout="compact", corpus_licence="PSF-2.0")):
        assert ShardMetadata.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_the_plain_layout_is_not_stored_as_in_the_first_shards(metadata):
    assert "layout" not in metadata.to_json()
    assert dataclasses.replace(metadata, layout="compact").to_json()["layout"] == "compact"


def test_only_target_shards_name_a_quantizer(metadata, tokens):
    assert (metadata.to_json()["quantizer"], tokens.to_json()["quantizer"]) == ("u(1+u)/64 + 1/2048", None)


def test_ids_are_bounded_by_the_teacher_if_there_is_one(metadata, tokens):
    teacher = dataclasses.replace(metadata.teacher, vocab_size=320)
    assert dataclasses.replace(metadata, teacher=teacher).vocab_size == 320
    assert tokens.vocab_size == 300


def test_fields_of_a_later_release_are_ignored(metadata):
    assert ShardMetadata.from_json(metadata.to_json() | {"luck": 7}) == metadata


def test_an_unknown_layout_is_refused(metadata):
    with pytest.raises(UnknownFormatVersionError, match="layout 'crystal'; this release reads plain, compact"):
        ShardMetadata.from_json(metadata.to_json() | {"layout": "crystal"})


def test_metadata_are_imported_without_numpy():
    program = "import sys, logitcask.schemas.format.metadata; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"False\n"
