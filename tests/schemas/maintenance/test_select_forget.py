"""`select` and `forget`: new snapshots that are true, old ones that stay as they were."""

import pytest
from random_shards import write_annotated_dataset

from logitcask.schemas import storage
from logitcask.schemas.dataset import snapshot_writer
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.rules import Rule
from logitcask.schemas.dataset.shard_view import open_shard
from logitcask.schemas.dataset.snapshot import Snapshot, load_snapshot, snapshot_numbers
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.errors import (
    IncompleteDatasetError,
    UnknownDocumentError,
    UsageError,
)
from logitcask.schemas.format.reader import Block
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.maintenance.select_forget import forget_documents, select_rows
from logitcask.schemas.maintenance.verify import verify
from logitcask.schemas.stats.target_statistics import Statistics


@pytest.fixture
def out(annotated_copy) -> str:
    return annotated_copy


def blocks(snapshot: Snapshot, split: str | None = None) -> list[Block]:
    found = []
    for entry in snapshot.shards(split):
        with open_shard(snapshot, entry) as shard:
            found.append(shard.read())
    return found


def everything(snapshot: Snapshot) -> tuple[Windows, Targets]:
    read = blocks(snapshot)
    windows = Windows.concatenate([block.windows for block in read])
    return windows, Targets.concatenate([block.targets for block in read if block.targets is not None])


def test_an_older_snapshot_reads_exactly_as_before(out, contents):
    before = load_snapshot(out)
    files = {file.url: storage.read_bytes(file.url) for file in storage.list_files(out)}
    rows = contents(everything(before))
    select_rows(out, Rule(min_entropy=2.0))
    forget_documents(out, ["a0-0"])
    assert snapshot_numbers(out) == [1, 2, 3]
    assert load_snapshot(out, 1) == before
    assert contents(everything(load_snapshot(out, 1))) == rows
    assert all(storage.read_bytes(url) == data for url, data in files.items())


@pytest.mark.parametrize(
    "rule",
    [
        Rule(sources=("*/a1.txt", "*#0")),
        Rule(forgotten=("a0-0", "a2-3")),
        Rule(min_entropy=1.5, max_entropy=2.5),
        Rule(min_loss=2.0, max_loss=9.0),
        Rule(kinds=("generated",)),
        Rule(sources=("*/a1.txt",), min_loss=1.0, kinds=("train",), forgotten=("a1-4",)),
    ],
)
def test_counts_and_statistics_are_those_of_the_rows_that_are_read(out, rule):
    snapshot = select_rows(out, rule).snapshot
    for split, summary in snapshot.splits.items():
        read = blocks(snapshot, split)
        windows = Windows.concatenate([block.windows for block in read])
        assert summary.num_windows == windows.num_windows == sum(e.num_windows for e in snapshot.shards(split))
        assert summary.num_positions == windows.num_positions == sum(e.num_positions for e in snapshot.shards(split))
        assert summary.num_documents == windows.num_documents()
        changed = [entry.selection is not None for entry in snapshot.shards(split)]
        if all(changed):
            targets = Targets.concatenate([block.targets for block in read if block.targets is not None])
            assert summary.statistics == Statistics.of(windows, targets)
        assert summary.statistics.targets == int(windows.has_target().sum())
    total = snapshot.total()
    assert snapshot.num_documents_in == total.num_documents + snapshot.num_rejected + snapshot.num_removed
    assert verify(out).faults == ()


def test_a_document_is_forgotten_in_every_part_and_no_other_is(out):
    base = load_snapshot(out)
    snapshot = forget_documents(out, ["a0-1", "a0-1"]).snapshot
    ids = [{part.id for block in blocks(one) for part in block.windows.parts} for one in (base, snapshot)]
    assert ids[0] - ids[1] == {"a0-1"}
    assert snapshot.removed == {"forgotten": 1}
    assert [entry.selection for entry in snapshot.shards()] == [None, 0, None]


def test_what_a_rule_changes_nothing_of_keeps_its_statistics(out):
    base = load_snapshot(out)
    snapshot = forget_documents(out, ["a0-1"]).snapshot
    assert snapshot.splits["held-out"] == base.splits["held-out"]
    assert snapshot.splits["train"].statistics.top1_known < base.splits["train"].statistics.top1_known


def test_rules_add_up(out):
    select_rows(out, Rule(min_entropy=1.5))
    snapshot = select_rows(out, Rule(max_entropy=2.5)).snapshot
    once = Rule(min_entropy=1.5, max_entropy=2.5)
    assert (snapshot.base, snapshot.made_by) == (2, "select")
    _, targets = everything(snapshot)
    assert targets.entropy is not None
    entropy = targets.entropy[targets.has_target()]
    assert ((entropy >= once.min_entropy) & (entropy <= once.max_entropy)).all()
    assert len(entropy)


def test_the_same_again_makes_no_new_snapshot(out):
    rule = Rule(min_loss=2.0, sources=("*/a0.txt", "*/a1.txt"))
    first = select_rows(out, rule).snapshot
    again = select_rows(out, rule)
    assert (again.base, again.snapshot) == (first, first)
    forgotten = forget_documents(out, ["a0-1"]).snapshot
    assert forget_documents(out, ["a0-1"]).snapshot == forgotten


def test_forgetting_again_changes_nothing_of_a_shard_that_is_gone(out):
    first = load_snapshot(out).shards("train")[0]
    with open_shard(load_snapshot(out), first) as shard:
        ids = sorted({part.id for part in shard.parts})
    forgotten = forget_documents(out, ids).snapshot
    assert first.name not in {entry.name for entry in forgotten.shards()}
    assert forget_documents(out, ids[:1]).snapshot == forgotten
    later = select_rows(out, Rule(min_loss=1.0)).snapshot
    assert forget_documents(out, ids).snapshot == later


def test_a_selection_may_start_from_an_older_snapshot(out, contents):
    base = load_snapshot(out)
    select_rows(out, Rule(sources=("*/a0.txt",)))
    snapshot = select_rows(out, Rule(sources=("*/a1.txt",)), snapshot=1).snapshot
    assert (snapshot.number, snapshot.base) == (3, 1)
    assert {part.source.partition("#")[0][-6:] for block in blocks(snapshot) for part in block.windows.parts} == {
        "a1.txt"
    }
    again = select_rows(out, Rule(), snapshot=1).snapshot
    assert again.number == 4
    assert contents(blocks(again)) == contents(blocks(base))


def test_what_was_forgotten_since_an_older_snapshot_stays_forgotten(out):
    forget_documents(out, ["a0-0"])
    snapshot = select_rows(out, Rule(sources=("*/a0.txt", "*/a1.txt")), snapshot=1).snapshot
    ids = {part.id for block in blocks(snapshot) for part in block.windows.parts}
    assert "a0-0" not in ids
    assert "a0-1" in ids
    total = snapshot.total()
    assert snapshot.num_documents_in == total.num_documents + snapshot.num_rejected + snapshot.num_removed


def test_an_unknown_document_is_named_and_nothing_is_forgotten(out):
    with pytest.raises(UnknownDocumentError, match=r"no document 'b-7' \(2 such ids\)"):
        forget_documents(out, ["a0-0", "b-7", "b-8"])
    assert snapshot_numbers(out) == [1]


def test_a_selection_that_leaves_nothing_to_learn_is_refused(out):
    with pytest.raises(UsageError, match="no target of snapshot 1 would remain"):
        select_rows(out, Rule(min_entropy=31.0))
    assert snapshot_numbers(out) == [1]


def test_entropies_that_were_not_stored_cannot_be_selected_by(tmp_path):
    write_annotated_dataset(str(tmp_path / "plain"), entropy=False)
    with pytest.raises(UsageError, match="no column `entropy`"):
        select_rows(str(tmp_path / "plain"), Rule(min_entropy=1.0))


def test_an_unfinished_dataset_is_not_selected_from(tmp_path):
    out = str(tmp_path / "half")
    write_draft(out, Draft.of_records([], complete=False, identity=Identity(), num_documents_in=1, rejected={}))
    with pytest.raises(IncompleteDatasetError):
        select_rows(out, Rule(min_loss=1.0))


def test_selecting_twice_at_once_loses_neither(out, monkeypatch):
    publish = snapshot_writer.publish

    def overtaken(*arguments):
        monkeypatch.setattr("logitcask.schemas.maintenance.select_forget.publish", publish)
        forget_documents(out, ["a0-0"])
        return publish(*arguments)

    monkeypatch.setattr("logitcask.schemas.maintenance.select_forget.publish", overtaken)
    snapshot = forget_documents(out, ["a1-0"]).snapshot
    assert snapshot.number == 3
    ids = {part.id for block in blocks(snapshot) for part in block.windows.parts}
    assert not {"a0-0", "a1-0"} & ids
