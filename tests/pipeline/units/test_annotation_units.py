"""Annotation units: one for each token shard, created on access."""

import pytest
from token_shards import token_shards

from logitcask.pipeline.units.annotation_units import AnnotationUnitTable, annotation_unit, shard_table
from logitcask.schemas.dataset.token_unit_record import TokenShard


def test_an_annotation_unit_is_named_by_its_token_shard_and_the_settings() -> None:
    shard = TokenShard(
        name="000003-0001-0123456789ab",
        split="train",
        num_windows=1,
        num_positions=2,
        num_documents=1,
        footer_digest="d",
    )
    one, other = annotation_unit(shard, "teacher"), annotation_unit(shard, "another teacher")
    assert one.name.startswith("000003-0001-")
    assert len({one.name, other.name, shard.name}) == 3
    assert (one.tokens, one.split) == (shard, "train")


def test_a_table_of_units_equals_the_list_of_units() -> None:
    shards = token_shards(9)
    units = AnnotationUnitTable(shard_table(iter(shards)), "teacher")
    assert [unit.tokens for unit in units] == shards
    assert [units[index] for index in range(9)] == list(units) == [unit for block in units.blocks(4) for unit in block]
    assert len({unit.name for unit in units}) == len(units) == 9
    with pytest.raises(IndexError):
        units[9]
