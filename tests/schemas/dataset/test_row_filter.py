"""Selections against a definition written row by row, in plain Python."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitcask.schemas.dataset.row_filter import select
from logitcask.schemas.dataset.rules import Rule
from logitcask.schemas.format.targets import Kind, Part, TailSample, Targets, Windows

SOURCES = ("/c/wiki/a.jsonl#1", "/c/wiki/b.jsonl#2", "/c/code/x.md")


@st.composite
def annotated(draw) -> tuple[Windows, Targets]:
    """Windows of up to four parts, and targets whose every number is different."""
    lengths = draw(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), max_size=5))
    parts = tuple(
        Part(id=draw(st.sampled_from("abcd")), source=draw(st.sampled_from(SOURCES)), offset=draw(st.integers(0, 1)))
        for window in lengths
        for _ in window
    )
    flat = [length for window in lengths for length in window]
    num_positions = sum(flat)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    windows = Windows(
        token=np.arange(num_positions, dtype=np.int32),
        kind=rng.integers(0, 4, num_positions).astype(np.uint8),
        part=np.repeat(np.arange(len(flat), dtype=np.int32), flat),
        window_offsets=np.cumsum([0, *map(sum, lengths)]).astype(np.int64),
        parts=parts,
    )
    has_target, has_label = windows.has_target(), windows.has_label()
    widths = np.where(has_target, rng.integers(1, 4, num_positions), 0)
    draws = np.where(has_target, 2, 0)

    def column(mask: np.ndarray) -> np.ndarray:
        return np.where(mask, rng.integers(0, 16, num_positions) / 4, np.nan).astype(np.float32)

    targets = Targets(
        head_ids=np.arange(widths.sum(), dtype=np.int32),
        head_log_probs=-np.arange(widths.sum(), dtype=np.float32),
        head_offsets=np.cumsum([0, *widths]).astype(np.int64),
        log_tail=-column(has_target),
        log_next=-column(has_label),
        entropy=column(has_target),
        top1_ids=np.where(has_target, windows.token, -1).astype(np.int32),
        tail_samples=(TailSample(ids=np.arange(draws.sum(), dtype=np.int32), offsets=np.cumsum([0, *draws])),),
        tempered_log_tails={2.0: -column(has_target)},
    )
    return windows, targets


bound = st.none() | st.integers(0, 16).map(lambda step: step / 4)


@st.composite
def rule(draw) -> Rule:
    low, high = sorted([draw(bound), draw(bound)], key=lambda one: -1.0 if one is None else one)
    least, most = sorted([draw(bound), draw(bound)], key=lambda one: -1.0 if one is None else one)
    return Rule(
        sources=draw(st.none() | st.sampled_from([("*/wiki/*",), ("/c/code/x.md", "*#1"), ("nothing",)])),
        forgotten=tuple(draw(st.sets(st.sampled_from("abcd"), max_size=2))),
        min_entropy=low,
        max_entropy=high,
        min_loss=least,
        max_loss=most,
        kinds=draw(st.sampled_from([None, None, ("train",), ("generated",), ("train", "generated")])),
    )


Row = dict[str, object]


def rows_of(windows: Windows, targets: Targets) -> list[list[Row]]:
    """Windows as lists of rows, nothing shared between them."""

    def row(index: int) -> Row:
        head = slice(targets.head_offsets[index], targets.head_offsets[index + 1])
        sample = targets.tail_samples[0]
        assert targets.entropy is not None
        assert targets.top1_ids is not None
        return {
            "token": int(windows.token[index]),
            "kind": int(windows.kind[index]),
            "part": windows.parts[windows.part[index]],
            "part_starts": bool(windows.part_starts()[index]),
            "ids": targets.head_ids[head].tolist(),
            "log_probs": targets.head_log_probs[head].tolist(),
            "draws": sample.ids[sample.offsets[index] : sample.offsets[index + 1]].tolist(),
            "tail": float(targets.log_tail[index]),
            "next": float(targets.log_next[index]),
            "entropy": float(targets.entropy[index]),
            "top1": int(targets.top1_ids[index]),
            "tail@2": float(targets.tempered_log_tails[2.0][index]),
        }

    offsets = windows.window_offsets.tolist()
    return [[row(i) for i in range(a, b)] for a, b in itertools.pairwise(offsets)]


def definition(windows: list[list[Row]], one: Rule) -> list[list[Row]]:
    """The three sentences of `schemas.dataset.row_filter`, one row at a time."""
    taken = []
    for window in windows:
        rows = []
        for row in window:
            part = row["part"]
            assert isinstance(part, Part)
            file = part.source.split("#")[0]
            by_source = {
                None: True,
                ("*/wiki/*",): "/wiki/" in file,
                ("/c/code/x.md", "*#1"): file == "/c/code/x.md" or part.source.endswith("#1"),
                ("nothing",): False,
            }[one.sources]
            if part.id in one.forgotten or not by_source:
                continue
            rows.append(row if is_learned(row, one) or row["kind"] in (1, 2) else silenced(row))
        if rows:
            taken.append(rows)
    return taken


def is_learned(row: Row, one: Rule) -> bool:
    loss, entropy = -row["next"], row["entropy"]  # pyright: ignore
    for low, value, high in ((one.min_entropy, entropy, one.max_entropy), (one.min_loss, loss, one.max_loss)):
        if (low, high) != (None, None) and (
            math.isnan(value) or (low is not None and value < low) or (high is not None and value > high)
        ):
            return False
    names = {Kind.TRAIN: "train", Kind.GENERATED: "generated"}
    return one.kinds is None or names.get(row["kind"]) in one.kinds  # pyright: ignore


def silenced(row: Row) -> Row:
    nothing = dict.fromkeys(("tail", "next", "entropy", "tail@2"), math.nan)
    return {**row, "kind": 1, "ids": [], "log_probs": [], "draws": [], "top1": -1, **nothing}


@settings(max_examples=40, deadline=None)
@given(annotated(), st.lists(rule(), max_size=2))
def test_what_stays_is_what_the_definition_says(pair, rules):
    expected = rows_of(*pair)
    for one in rules:
        expected = definition(expected, one)
    windows, targets = select(*pair, tuple(rules))
    found = rows_of(windows, targets)
    # repr: NaN equals itself.
    assert repr(found) == repr(expected)
    assert (targets.has_label() == windows.has_label()).all()
    assert {part for part in windows.parts if part.id in {i for one in rules for i in one.forgotten}} == set()


def test_without_rules_nothing_is_copied(windows, targets):
    same_windows, same_targets = select(windows, targets, ())
    assert same_windows is windows
    assert same_targets is targets


@pytest.mark.parametrize("forgotten", [(), ("document-0",)])
def test_the_rest_s_labels_and_positions_stay(windows, targets, forgotten):
    kept, _ = select(windows, targets, (Rule(forgotten=forgotten, min_entropy=2.0),))
    rows = ~np.isin([part.id for part in windows.parts], forgotten)[windows.part]
    np.testing.assert_array_equal(kept.position_ids(), windows.position_ids()[rows])
    np.testing.assert_array_equal(kept.next_token(), windows.next_token()[rows])
