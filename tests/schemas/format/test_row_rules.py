"""Each rule of FORMAT.md that rows can break, broken alone: exactly that rule is named."""

import dataclasses

import numpy as np
import pytest
from random_shards import random_targets

from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.row_rules import RowCheck, broken_row_rules
from logitcask.schemas.format.scheme import RandomSamplingScheme, ThresholdSamplingScheme, TopKScheme
from logitcask.schemas.format.targets import Kind, StoredTargets, TailSample, Targets
from logitcask.schemas.format.writer import encode_shard


def names(found: list[str]) -> list[str]:
    return [rule.partition(" (first in row")[0] for rule in found]


def changed(values: np.ndarray, row: int, value: float) -> np.ndarray:
    copy = values.copy()
    copy[row] = value
    return copy


def first(is_row: np.ndarray) -> int:
    return int(np.flatnonzero(is_row)[0])


def descending(targets: Targets) -> Targets:
    start = targets.head_offsets[first(targets.head_widths() > 1)]
    ids = targets.head_ids.copy()
    ids[[start, start + 1]] = ids[[start + 1, start]]
    return dataclasses.replace(targets, head_ids=ids)


def without_head(targets: Targets, row: int) -> Targets:
    """The row's head as part of its tail."""
    entries = slice(targets.head_offsets[row], targets.head_offsets[row + 1])
    offsets = targets.head_offsets.copy()
    offsets[row + 1 :] -= entries.stop - entries.start
    return dataclasses.replace(
        targets,
        head_ids=np.delete(targets.head_ids, entries),
        head_log_probs=np.delete(targets.head_log_probs, entries),
        head_offsets=offsets,
        log_tail=changed(targets.log_tail, row, 0.0),
    )


def scaled(targets: Targets, factor: float) -> Targets:
    """Head and tail of the first target, all probabilities times a factor."""
    row, nats = first(targets.has_target()), np.float32(np.log(factor))
    entries = slice(targets.head_offsets[row], targets.head_offsets[row + 1])
    log_probs = targets.head_log_probs.copy()
    log_probs[entries] += nats
    log_tail = changed(targets.log_tail, row, targets.log_tail[row] + nats)
    return dataclasses.replace(targets, head_log_probs=log_probs, log_tail=log_tail)


def test_sound_rows_break_nothing(windows, targets, metadata):
    assert broken_row_rules(windows, targets, metadata) == []


def test_tokens_alone_break_nothing(windows, metadata):
    assert broken_row_rules(windows, None, dataclasses.replace(metadata, kind="tokens", scheme=None)) == []


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda w: {"token": changed(w.token, 5, 300)}, "a token is outside the vocabulary"),
        (lambda w: {"token": changed(w.token, 5, -1)}, "a token is outside the vocabulary"),
        (lambda w: {"part": w.part + 1, "parts": (w.parts[0], *w.parts)}, "`document` is 1, expected 0"),
        (lambda w: {"parts": (*w.parts, w.parts[0])}, "rows of 15 parts, but 16 parts are listed"),
        (
            lambda w: {"part": np.where(w.part >= 3, w.part + 1, w.part), "parts": (*w.parts, w.parts[0])},
            "`document` does not rise by one at the start of a part",
        ),
    ],
)
def test_a_broken_rule_of_tokens_is_named(windows, targets, metadata, change, rule):
    assert len(windows.parts) == 15
    assert names(broken_row_rules(dataclasses.replace(windows, **change(windows)), targets, metadata)) == [rule]


def test_a_part_that_spans_two_windows_is_named(windows, metadata):
    windows = dataclasses.replace(windows, part=np.zeros_like(windows.part), parts=windows.parts[:1])
    found = broken_row_rules(windows, None, metadata)
    assert found == ["`document` does not rise by one at the start of a part (first in row 64)"]


def test_an_unknown_kind_is_named(windows, targets, metadata):
    row = first(windows.kind == Kind.PROMPT)
    unknown = dataclasses.replace(windows, kind=changed(windows.kind, row, 4))
    assert broken_row_rules(unknown, targets, metadata) == [f"an unknown kind (first in row {row})"]


def test_a_window_that_is_too_long_is_named(windows, targets, metadata):
    found = broken_row_rules(windows, targets, dataclasses.replace(metadata, window_tokens=50))
    assert found == ["a window has more than 50 positions (first in row 0)"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (descending, "head ids do not ascend"),
        (
            lambda t: dataclasses.replace(t, head_ids=changed(t.head_ids, t.head_offsets[-1] - 1, 300)),
            "a head id is outside the vocabulary",
        ),
        (lambda t: without_head(t, first(t.has_target())), "a trained row has an empty head, and no tail sample"),
        (
            lambda t: dataclasses.replace(t, log_next=changed(t.log_next, first(t.has_label()), np.nan)),
            "next_q is present where there is no label, or absent where there is one",
        ),
        (
            lambda t: dataclasses.replace(t, log_next=changed(t.log_next, first(~t.has_target()), -1.0)),
            "next_q is present where there is no label, or absent where there is one",
        ),
        (
            lambda t: dataclasses.replace(t, entropy=changed(t.entropy, first(t.has_target()), np.nan)),
            "entropy is present where there is no target, or absent where there is one",
        ),
        (
            lambda t: dataclasses.replace(t, entropy=changed(t.entropy, first(~t.has_target()), 1.0)),
            "entropy is present where there is no target, or absent where there is one",
        ),
        (lambda t: dataclasses.replace(t, entropy=None), "the shard says that it has an entropy, but it has none"),
        (
            lambda t: dataclasses.replace(t, tempered_log_tails={2.0: np.full_like(t.log_tail, np.nan)}),
            "tail@2 is present where there is no target, or absent where there is one",
        ),
        (lambda t: scaled(t, 1.03), "head and tail do not add up to one within 2 %"),
        (lambda t: scaled(t, 0.97), "head and tail do not add up to one within 2 %"),
        (lambda t: scaled(t, np.inf), "head and tail do not add up to one within 2 %"),
    ],
)
def test_a_broken_rule_of_targets_is_named(windows, targets, metadata, change, rule):
    assert names(broken_row_rules(windows, change(targets), metadata)) == [rule]


def test_a_target_on_a_context_row_is_named(windows, targets, metadata):
    row = first(targets.has_label())
    context = dataclasses.replace(windows, kind=changed(windows.kind, row, Kind.CONTEXT))
    found = names(broken_row_rules(context, targets, metadata))
    assert "a row of this kind must (not) have a target" in found


def test_a_head_of_a_row_without_a_target_is_named(windows, targets, metadata):
    row = first(targets.has_label())
    nan = {name: changed(getattr(targets, name), row, np.nan) for name in ("log_tail", "log_next", "entropy")}
    context = dataclasses.replace(windows, kind=changed(windows.kind, row, Kind.CONTEXT))
    found = broken_row_rules(context, dataclasses.replace(targets, **nan), metadata)
    assert found == [f"a row without a target has a head (first in row {row})"]


def test_a_head_wider_than_its_scheme_is_named(windows, targets, metadata):
    widest = int(targets.head_widths().max())
    assert broken_row_rules(windows, targets, dataclasses.replace(metadata, scheme=TopKScheme(k=widest))) == []
    found = broken_row_rules(windows, targets, dataclasses.replace(metadata, scheme=TopKScheme(k=widest - 1)))
    assert names(found) == ["a head has more entries than the scheme allows"]


def test_an_entropy_that_the_metadata_denies_is_named(windows, targets, metadata):
    found = broken_row_rules(windows, targets, dataclasses.replace(metadata, has_entropy=False))
    assert names(found) == ["the shard says that it has no entropy, but it has one"]


def sampled(targets: Targets, ids: list[int], *, everywhere: bool = False) -> Targets:
    """One draw of each of `ids`, at all rows with a target, or at all rows; two replicas, and no head."""
    rows = targets.has_target() | everywhere
    sample = TailSample(
        ids=np.tile(np.array(ids, np.int32), int(rows.sum())), offsets=np.cumsum([0, *(rows * len(ids))])
    )
    return dataclasses.replace(
        targets,
        head_ids=targets.head_ids[:0],
        head_log_probs=targets.head_log_probs[:0],
        head_offsets=np.zeros_like(targets.head_offsets),
        log_tail=np.where(targets.has_target(), np.float32(0), np.float32(np.nan)),
        tail_samples=(sample, sample),
    )


@pytest.fixture
def drawn(metadata):
    return dataclasses.replace(metadata, scheme=RandomSamplingScheme(draws=3, replicas=2))


def test_sampled_rows_without_a_head_break_nothing(windows, targets, drawn):
    assert broken_row_rules(windows, sampled(targets, [4, 4, 5]), drawn) == []


@pytest.mark.parametrize(
    ("ids", "everywhere", "rules"),
    [
        ([5, 4], False, ["drawn ids do not ascend"]),
        ([-1, 4], False, ["a drawn id is outside the vocabulary"]),
        ([4, 300], False, ["a drawn id is outside the vocabulary"]),
        ([4], True, ["a row without a tail has a tail sample"]),
        ([], False, ["a row with a tail has no tail sample"]),
    ],
)
def test_a_broken_rule_of_samples_is_named(windows, targets, drawn, ids, everywhere, rules):
    found = names(broken_row_rules(windows, sampled(targets, ids, everywhere=everywhere), drawn))
    expected = [f"{column}: {rule}" for column in ("tail_sample", "tail_sample@1") for rule in rules]
    assert found == ([] if ids else ["a trained row has an empty head, and no tail sample"]) + expected


def test_a_drawn_id_of_the_head_is_named(rng, windows, metadata):
    sampling = dataclasses.replace(metadata, scheme=ThresholdSamplingScheme())
    targets = random_targets(rng, windows, widths=range(1, 30), num_samples=1)
    assert broken_row_rules(windows, targets, sampling) == []
    row = first(targets.has_target())
    ids = targets.tail_samples[0].ids.copy()
    ids[targets.tail_samples[0].offsets[row]] = targets.head_ids[targets.head_offsets[row]]
    sample = dataclasses.replace(targets.tail_samples[0], ids=ids)
    found = names(broken_row_rules(windows, dataclasses.replace(targets, tail_samples=(sample,)), sampling))
    assert "tail_sample: an id of the head was drawn from the tail" in found


def test_a_missing_replica_is_named(windows, targets, drawn):
    one = sampled(targets, [4])
    found = broken_row_rules(windows, dataclasses.replace(one, tail_samples=one.tail_samples[:1]), drawn)
    assert names(found) == ["1 tail samples, but the scheme has 2"]


def as_stored(tmp_path, windows, targets, metadata) -> StoredTargets:
    (tmp_path / "x.parquet").write_bytes(encode_shard(windows, targets, metadata).data)
    with ShardReader(str(tmp_path / "x.parquet")) as reader:
        stored = reader.read_stored().targets
    assert stored is not None
    return stored


def test_stored_targets_obey_the_same_rules(tmp_path, windows, targets, metadata):
    assert broken_row_rules(windows, as_stored(tmp_path, windows, targets, metadata), metadata) == []
    wrong = as_stored(tmp_path, windows, scaled(targets, 0.9), metadata)
    assert names(broken_row_rules(windows, wrong, metadata)) == ["head and tail do not add up to one within 2 %"]


@pytest.mark.parametrize("width", [1, 2, 37, 150, 299, 300])
def test_rounding_never_breaks_the_rule_of_the_sum(tmp_path, windows, targets, metadata, width):
    """Equal probabilities, which all round in the same direction."""
    rows = targets.has_target()
    with np.errstate(divide="ignore"):
        tail = np.float32(np.log(1 - width / 300))
    equal = dataclasses.replace(
        targets,
        head_ids=np.tile(np.arange(width, dtype=np.int32), int(rows.sum())),
        head_log_probs=np.full(width * int(rows.sum()), -np.log(300), np.float32),
        head_offsets=np.cumsum([0, *(rows * width)]),
        log_tail=np.where(rows, tail, np.float32(np.nan)),
    )
    wide = dataclasses.replace(metadata, scheme=TopKScheme(k=300))
    assert broken_row_rules(windows, as_stored(tmp_path, windows, equal, wide), wide) == []


def test_blocks_break_the_rules_of_the_whole(windows, targets, metadata):
    wrong = dataclasses.replace(windows, token=changed(windows.token, 130, 300))
    check = RowCheck(metadata=metadata)
    for start in range(0, windows.num_windows, 2):
        stop = min(start + 2, windows.num_windows)
        rows = int(windows.window_offsets[start]), int(windows.window_offsets[stop])
        check.add(wrong.select(start, stop), targets.select_rows(*rows))
    assert check.finish(len(windows.parts)) == broken_row_rules(wrong, targets, metadata)
    assert check.num_targets == int(targets.has_target().sum())
