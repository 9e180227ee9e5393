"""Rows that break a rule of the format, in files that are otherwise whole: `verify` names the rule."""

import dataclasses

import numpy as np
import pytest

from schemas.reader import ShardReader
from schemas.shard import encode_shard
from schemas.targets import Kind, Targets
from schemas.verification import check_rows


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
