"""A shard of a snapshot: windows without what the rules leave out, numbered again, from checked bytes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from random_shards import IDENTITY, random_targets, random_windows

from logitcask.schemas.dataset.dataset_writer import DatasetWriter
from logitcask.schemas.dataset.rules import Rule
from logitcask.schemas.dataset.shard_view import open_shard, parts_of_shards, stored_record
from logitcask.schemas.dataset.snapshot import Snapshot, load_snapshot
from logitcask.schemas.errors import CorruptShardError, MissingShardError
from logitcask.schemas.format.targets import Kind
from logitcask.schemas.maintenance.select_forget import forget_documents, select_rows


@pytest.fixture
def out(annotated_copy) -> str:
    return annotated_copy


@pytest.fixture
def forgotten(out) -> Snapshot:
    """A snapshot without the document a0-0, which is in the shard a0."""
    return forget_documents(out, ["a0-0"]).snapshot


def test_windows_are_numbered_without_those_that_are_left_out(out):
    base = load_snapshot(out)
    entry = base.shards("train")[0]
    with open_shard(base, entry) as shard:
        first = shard.read(0, 1).windows
        rest = shard.read(1, shard.num_windows)
    ids = sorted({first.parts[part].id for part in np.unique(first.part)})
    snapshot = forget_documents(out, ids).snapshot
    (left,) = [one for one in snapshot.shards("train") if one.name == entry.name]
    with open_shard(snapshot, left) as shard:
        assert shard.num_windows == left.num_windows
        one_by_one = [shard.read(index, index + 1).windows for index in range(shard.num_windows)]
        blocks = [shard.block_of(index) for index in range(shard.num_windows)]
        assert blocks == [(0, shard.num_windows)] * len(one_by_one)
    gone = np.isin([part.id for part in rest.windows.parts], ids)[rest.windows.part]
    tokens = np.concatenate([windows.token for windows in one_by_one])
    np.testing.assert_array_equal(tokens, rest.windows.token[~gone])
    assert all(windows.num_positions for windows in one_by_one)


def test_tokens_alone_are_those_of_the_windows(forgotten):
    for entry in forgotten.shards():
        with open_shard(forgotten, entry) as shard:
            token, part, window_offsets = shard.read_tokens()
            windows = shard.read().windows
            parts = [shard.parts[index] for index in part]
        np.testing.assert_array_equal(token, windows.token)
        np.testing.assert_array_equal(window_offsets, windows.window_offsets)
        assert parts == [windows.parts[index] for index in windows.part]


def test_hashes_are_those_of_the_windows_that_are_left(forgotten):
    for entry in forgotten.shards():
        with open_shard(forgotten, entry) as shard:
            assert shard.window_hashes() == shard.read().windows.content_hashes()


def test_a_rule_on_entropy_does_not_add_the_column_to_what_is_read(out):
    snapshot = select_rows(out, Rule(min_entropy=2.0)).snapshot
    with open_shard(snapshot, snapshot.shards("train")[0]) as shard:
        without, whole = shard.read(options=()).targets, shard.read().targets
    assert without is not None
    assert whole is not None
    assert without.entropy is None
    np.testing.assert_array_equal(without.head_ids, whole.head_ids)


def test_parts_of_shards_are_listed_whatever_the_rules_leave(out, forgotten):
    ids = {part.id for parts in parts_of_shards(forgotten, forgotten.shards()) for part in parts}
    assert "a0-0" in ids


def test_what_was_stored_is_checked_before_rules_are_applied(forgotten):
    entry = forgotten.shards("train")[0]
    file = Path(forgotten.shard_url(entry))
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CorruptShardError), open_shard(forgotten, entry) as shard:
        shard.read()


def test_a_snapshot_that_miscounts_a_selection_is_refused(forgotten):
    (entry,) = [one for one in forgotten.shards() if one.selection is not None]
    with pytest.raises(CorruptShardError, match="but snapshot 2 counts 99"):
        open_shard(forgotten, dataclasses.replace(entry, num_windows=99))


def test_a_missing_record_is_named(forgotten):
    entry = forgotten.shards()[0]
    Path(forgotten.shard_url(entry)).with_suffix(".json").unlink()
    with pytest.raises(MissingShardError, match=r"a2\.json: no record"):
        stored_record(forgotten, entry)


@pytest.mark.parametrize(
    "rule", [None, Rule(kinds=("generated",)), Rule(min_entropy=2.0), Rule(forgotten=("a0-0", "a0-3"))]
)
def test_windows_without_target_are_those_that_show_none(tmp_path, rule):
    rng = np.random.default_rng(3)
    windows = random_windows(rng, [5, 3, 8, 2, 6, 1], longest_part=4, prefix="a0")
    kind = windows.kind.copy()
    kind[5:8], kind[18:24] = Kind.PROMPT, Kind.CONTEXT
    windows = dataclasses.replace(windows, kind=kind)
    writer = DatasetWriter(str(tmp_path), IDENTITY)
    writer.write(windows, random_targets(rng, windows), split="train")
    snapshot = writer.finish()
    if rule is not None:
        snapshot = select_rows(str(tmp_path), rule).snapshot
    (entry,) = snapshot.shards("train")
    with open_shard(snapshot, entry) as shard:
        shown = [shard.read(window, window + 1).targets.has_target().any() for window in range(shard.num_windows)]
        assert shard.windows_without_target().tolist() == [window for window, any_ in enumerate(shown) if not any_]
    assert rule is not None or shown.count(False) >= 2
