"""Rows that break a rule of the format, in files that are otherwise whole: `verify` names the rule."""

import dataclasses

import numpy as np
import pytest

from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.targets import Kind, TailSample, Targets
from logitcask.schemas.format.writer import encode_shard
from logitcask.schemas.maintenance.verify import check_rows


def check(tmp_path, windows, targets, metadata) -> list[str]:
    (tmp_path / "x.parquet").write_bytes(encode_shard(windows, targets, metadata).data)
    with ShardReader(str(tmp_path / "x.parquet")) as reader:
        return check_rows(reader)[0]


def descending(targets: Targets) -> Targets:
    ids = targets.head_ids.copy()
    row = int(np.flatnonzero(targets.head_widths() > 1)[0])
    start = targets.head_offsets[row]
    ids[[start, start + 1]] = ids[[start + 1, start]]
    return dataclasses.replace(targets, head_ids=ids)


def no_label(targets: Targets) -> Targets:
    return dataclasses.replace(targets, log_next=np.full_like(targets.log_next, np.nan))


def no_target(targets: Targets) -> Targets:
    return dataclasses.replace(targets, log_tail=np.full_like(targets.log_tail, np.nan))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (descending, "do not ascend"),
        (no_label, "next_q is present where there is no label"),
        (no_target, "a row without a target has a head"),
    ],
)
def test_a_broken_rule_is_named(tmp_path, windows, targets, metadata, change, rule):
    assert any(rule in what for what in check(tmp_path, windows, change(targets), metadata))


def test_an_empty_head_on_a_trained_row_is_named(tmp_path, windows, targets, metadata):
    empty = dataclasses.replace(
        targets,
        head_ids=targets.head_ids[:0],
        head_log_probs=targets.head_log_probs[:0],
        head_offsets=np.zeros_like(targets.head_offsets),
    )
    assert any("empty head" in what for what in check(tmp_path, windows, empty, metadata))


def test_a_target_on_a_context_row_is_named(tmp_path, windows, targets, metadata):
    context = dataclasses.replace(windows, kind=np.full_like(windows.kind, Kind.CONTEXT))
    assert any("(not) have a target" in what for what in check(tmp_path, context, targets, metadata))


def test_sound_rows_break_nothing(tmp_path, windows, targets, metadata):
    assert check(tmp_path, windows, targets, metadata) == []


def sampled(targets: Targets, ids: list[int], *, everywhere: bool = True) -> Targets:
    """One draw of each of `ids`, at all rows with a target, or at all rows; two replicas, and no head."""
    rows = targets.has_target() | (not everywhere)
    sample = TailSample(
        ids=np.tile(np.array(ids, np.int32), int(rows.sum())), offsets=np.cumsum([0, *(rows * len(ids))])
    )
    return dataclasses.replace(
        targets,
        head_ids=targets.head_ids[:0],
        head_log_probs=targets.head_log_probs[:0],
        head_offsets=np.zeros_like(targets.head_offsets),
        tail_samples=(sample, sample),
    )


def with_heads(targets: Targets, ids: list[int]) -> Targets:
    return dataclasses.replace(targets, tail_samples=sampled(targets, ids).tail_samples)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda t: sampled(t, [5, 4]), "tail_sample: drawn ids do not ascend"),
        (lambda t: sampled(t, [4], everywhere=False), "tail_sample: a row without a tail has a tail sample"),
        (lambda t: sampled(t, []), "tail_sample@1: a row with a tail has no tail sample"),
        (lambda t: sampled(t, []), "empty head, and no tail sample"),
        (lambda t: with_heads(t, [int(t.head_ids[0])]), "tail_sample: an id of the head was drawn"),
        (
            lambda t: dataclasses.replace(t, tempered_log_tails={2.0: np.zeros_like(t.log_tail)}),
            "tail@2 is present where there is no target",
        ),
    ],
)
def test_a_broken_rule_of_samples_is_named(tmp_path, windows, targets, metadata, change, rule):
    assert any(rule in what for what in check(tmp_path, windows, change(targets), metadata))


def test_a_drawn_id_beyond_the_vocabulary_is_named(tmp_path, windows, targets, metadata):
    wide = dataclasses.replace(metadata, teacher=dataclasses.replace(metadata.teacher, vocab_size=400))
    (tmp_path / "x.parquet").write_bytes(encode_shard(windows, sampled(targets, [350]), wide).data)
    with ShardReader(str(tmp_path / "x.parquet")) as reader:
        reader.metadata = metadata
        assert any("tail_sample: a drawn id is outside the vocabulary" in what for what in check_rows(reader)[0])


def test_sampled_rows_without_a_head_break_nothing(tmp_path, windows, targets, metadata):
    assert check(tmp_path, windows, sampled(targets, [4, 4, 5]), metadata) == []
