"""The registry covers every column of a target shard, and treats all of them alike."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from logitcask.schemas.format.columns.registry import (
    TARGET_COLUMNS,
    broken_rules,
    encode_targets,
    filter_rows,
    is_optional,
    required_columns,
)
from logitcask.schemas.format.columns.tokens import encode_windows
from logitcask.schemas.format.scheme import RandomSamplingScheme
from logitcask.schemas.format.targets import TailSample, Targets


@pytest.fixture
def rich(targets: Targets) -> Targets:
    """Targets with every optional column: two replicas of samples and two more temperatures."""
    ids, offsets = np.zeros(int(targets.has_target().sum()), np.int32), np.cumsum([0, *targets.has_target()])
    tails = {2.0: targets.log_tail / 2, 0.5: targets.log_tail}
    return dataclasses.replace(
        targets, tail_samples=(TailSample(ids=ids, offsets=offsets),) * 2, tempered_log_tails=tails
    )


@pytest.fixture
def table(windows, rich, metadata) -> pa.Table:
    return encode_targets(encode_windows(windows, metadata.vocab_size), rich, metadata)


def test_columns_have_one_order_in_the_file(table):
    tokens, heads = ["window", "document", "token", "kind"], ["ids", "q"]
    options = ["entropy", "tail_sample", "tail_sample@1", "tail@0.5", "tail@2"]
    assert table.column_names == [*tokens, *heads, "tail", "next_q", *options]


def test_every_target_column_belongs_to_one_family(table):
    for name in table.column_names[4:]:
        assert sum(columns.owns(name) for columns in TARGET_COLUMNS) == 1, name


def test_what_is_not_required_is_optional(table, metadata):
    required = required_columns(metadata)
    assert [name for name in table.column_names if name not in required] == [*filter(is_optional, table.column_names)]


@pytest.mark.parametrize("name", ["rank", "tail@", "tail@x", "tail_sample@0", "tail_sample@01", "entropy@2", "window"])
def test_other_names_are_not_optional_columns(name):
    assert not is_optional(name)


def test_a_scheme_that_samples_requires_every_replica(metadata):
    sampled = dataclasses.replace(metadata, scheme=RandomSamplingScheme(replicas=2))
    assert required_columns(sampled)[-2:] == ["tail_sample", "tail_sample@1"]


def test_a_compact_shard_requires_gaps_in_place_of_ids(metadata):
    names = required_columns(dataclasses.replace(metadata, layout="compact"))
    assert "id_gaps" in names
    assert "ids" not in names


def test_a_token_shard_requires_only_token_columns(metadata):
    tokens = dataclasses.replace(metadata, kind="tokens", teacher=None, scheme=None)
    assert required_columns(tokens) == ["window", "document", "token", "kind"]


def test_rows_are_filtered_in_a_table_as_in_memory(table, windows, rich, metadata, rng):
    kept = rng.random(windows.num_positions) < 0.7
    silenced = kept & (rng.random(windows.num_positions) < 0.2)
    num_kept = int(kept.sum())
    tokens = table.select(["window", "document", "token", "kind"]).slice(0, num_kept)
    filtered = filter_rows(table, tokens, kept, silenced)
    assert filtered == encode_targets(tokens, rich.filter_rows(kept, silenced), metadata)


def test_sound_rows_break_no_rule(windows, rich, metadata):
    # The drawn ids may be in heads here, which is a rule of samples.
    assert list(broken_rules(windows, dataclasses.replace(rich, tail_samples=()), metadata)) == []


def test_a_broken_rule_names_its_first_row(windows, targets, metadata):
    token = windows.token.copy()
    token[[5, 9]] = 300
    bad = dataclasses.replace(windows, token=token)
    assert list(broken_rules(bad, targets, metadata)) == [("a token is outside the vocabulary", 5)]
