"""`compact`: what is left out leaves the disk, whatever happens on the way, and what is shown stays."""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from logitcask.schemas import storage
from logitcask.schemas.dataset import snapshot_writer
from logitcask.schemas.dataset.appends import claim_append
from logitcask.schemas.dataset.identity import CorpusInfo, Identity
from logitcask.schemas.dataset.rules import Rule
from logitcask.schemas.dataset.shard_view import open_shard, stored_record
from logitcask.schemas.dataset.snapshot import load_snapshot, snapshot_numbers
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.errors import CorruptShardError, IncompleteDatasetError, MissingShardError, UsageError
from logitcask.schemas.format.reader import Block
from logitcask.schemas.maintenance.compact import JOURNAL_NAME, compact
from logitcask.schemas.maintenance.select_forget import forget_documents, select_rows
from logitcask.schemas.maintenance.verify import verify


@pytest.fixture
def out(annotated_copy) -> str:
    return annotated_copy


def shown(out: str) -> list[Block]:
    """Everything the latest snapshot shows, shard by shard."""
    snapshot = load_snapshot(out)
    found = []
    for entry in snapshot.shards():
        with open_shard(snapshot, entry) as shard:
            found.append(shard.read())
    return found


def files(out: str) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(Path(out).rglob("*")) if path.is_file()}


def tokens_of(out: str, document: str) -> np.ndarray:
    """The longest stretch of a document's tokens in one window."""
    stretches = [
        block.windows.token[block.windows.part == index]
        for block in shown(out)
        for index, part in enumerate(block.windows.parts)
        if part.id == document
    ]
    return max(stretches, key=len)


def holds_tokens(path: Path, tokens: np.ndarray) -> bool:
    """Whether a file has these tokens in a row, in plain bytes or in a Parquet column."""
    if tokens.astype("<i4").tobytes() in path.read_bytes():
        return True
    if path.suffix != ".parquet" or "token" not in (table := pq.read_table(path)).column_names:
        return False
    return tokens.astype("<i4").tobytes() in table["token"].to_numpy().astype("<i4").tobytes()


def test_nothing_of_a_forgotten_document_is_left_on_the_disk(out):
    tokens = tokens_of(out, "a0-0")
    assert len(tokens) > 4
    (Path(out) / "targets/train/.tmp-killed").write_bytes(tokens.tobytes())
    before = [path for path in Path(out).rglob("*") if path.is_file() and holds_tokens(path, tokens)]
    assert len(before) == 3
    forget_documents(out, ["a0-0"])
    compact(out)
    for path in (path for path in Path(out).rglob("*") if path.is_file()):
        assert not holds_tokens(path, tokens), path
        for trace in (b"a0-0", b"a0.txt#0"):
            assert trace not in path.read_bytes(), path
        if path.suffix == ".parquet":
            assert b"a0-0" not in str(pq.read_metadata(path).metadata).encode(), path


def test_what_the_snapshot_shows_stays_the_same(out, contents):
    select_rows(out, Rule(min_entropy=1.8, sources=("*/a0.txt", "*/a1.txt")))
    filtered = forget_documents(out, ["a0-0", "a1-4"]).snapshot
    before = contents(shown(out))
    result = compact(out)
    compacted = load_snapshot(out)
    assert compacted.number == result.snapshot == 4
    assert contents(shown(out)) == before
    assert compacted.selections == ()
    assert verify(out).faults == ()
    for split, summary in filtered.splits.items():
        smaller = compacted.splits[split]
        assert smaller.size_bytes < summary.size_bytes
        sizes = {"size_bytes": 0, "column_bytes": {}, "extremes": {}}
        assert dataclasses.replace(smaller, **sizes) == dataclasses.replace(summary, **sizes)
    assert (compacted.removed, compacted.rejected) == (filtered.removed, filtered.rejected)
    assert compacted.num_documents_in == filtered.num_documents_in


def test_snapshots_that_show_what_is_erased_go_and_others_stay(out, tmp_path):
    first = load_snapshot(out)
    records = [stored_record(first, entry) for entry in first.shards()]
    same = {"complete": True, "identity": first.identity, "rejected": first.rejected}
    without = [record for record in records if record.name != "a0"]
    part = write_draft(out, Draft.of_records(without, num_documents_in=0, **same))
    whole = write_draft(out, Draft.of_records(records, num_documents_in=first.num_documents_in, **same))
    forget_documents(out, ["a0-0"])
    assert compact(out).removed_snapshots == (first.number, whole.number, 4)
    assert snapshot_numbers(out) == [part.number, 5]
    assert load_snapshot(out, part.number) == part
    for entry in part.shards():
        open_shard(part, entry).close()


def test_lines_on_other_documents_stay_in_the_rejected_ones(out):
    forget_documents(out, ["a0-0"])
    compact(out)
    (file,) = (Path(out) / "rejected").iterdir()
    assert [json.loads(line)["raw"] for line in file.read_text().splitlines()] == ["rejected 99"]


def test_token_shards_of_other_documents_stay(out):
    forget_documents(out, ["a0-0"])
    compact(out)
    left = {path.name for path in Path(out).glob("tokens/*/*")}
    assert left == {"a1-tokens.parquet", "a1-tokens.json", "a2-tokens.parquet", "a2-tokens.json"}


def test_shards_that_no_snapshot_needs_go(out):
    forget = Rule(sources=("*/a1.txt",))
    select_rows(out, forget)
    compact(out)
    assert {path.stem for path in Path(out).glob("targets/*/*.parquet")} == {"a1"}
    assert snapshot_numbers(out) == [2]


def test_without_anything_left_out_nothing_is_touched(out):
    before = files(out)
    result = compact(out)
    assert (result.removed_files, result.snapshot) == ((), 1)
    assert files(out) == before
    forget_documents(out, ["a0-0"])
    compact(out)
    before = files(out)
    assert compact(out).removed_files == ()
    assert files(out) == before


class Killed(BaseException):
    """What no code catches, as a process that is killed runs nothing more."""


@pytest.fixture
def kill_at(monkeypatch) -> Callable[[int | None], None]:
    """`kill_at(n)`: instead of creating or removing the n-th file from now on, the process is gone; None: never."""
    left: list[int | None] = [None]

    def counted(step):
        def run(*arguments):
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
            return step(*arguments)

        return run

    monkeypatch.setattr(storage, "create", counted(storage.create))
    monkeypatch.setattr(storage, "remove", counted(storage.remove))
    return lambda step: left.__setitem__(0, step)


@pytest.fixture
def forgetful(out) -> str:
    """With documents to forget in two shards."""
    forget_documents(out, ["a0-0", "a1-1"])
    return out


NUM_STEPS = 26


@pytest.mark.parametrize(
    "step", [pytest.param(n, marks=() if n in (1, 7, 12) else pytest.mark.slow) for n in range(NUM_STEPS)]
)
def test_killed_at_any_step_it_is_finished_by_the_next_run(forgetful, tmp_path, kill_at, contents, step):
    undisturbed = str(shutil.copytree(forgetful, tmp_path / "undisturbed"))
    compact(undisturbed)
    kill_at(step)
    with pytest.raises(Killed):
        compact(forgetful)
    kill_at(None)
    # A concurrent reader finds a whole snapshot.
    assert contents(shown(forgetful)) == contents(shown(undisturbed))
    compact(forgetful)
    assert files(forgetful) == files(undisturbed)


@pytest.mark.slow
def test_those_were_all_steps(forgetful, kill_at):
    kill_at(NUM_STEPS)
    compact(forgetful)
    kill_at(0)
    with pytest.raises(Killed):
        compact(forgetful)


@pytest.mark.parametrize(
    "step", [pytest.param(n, marks=() if n in (2, 7, 12) else pytest.mark.slow) for n in range(NUM_STEPS)]
)
def test_two_at_once_do_what_one_does(forgetful, tmp_path, monkeypatch, step):
    """A second run begins and ends before any step of the first."""
    undisturbed = str(shutil.copytree(forgetful, tmp_path / "undisturbed"))
    compact(undisturbed)
    steps = itertools.count()

    def overtaken(change):
        def run(*arguments):
            if next(steps) == step:
                compact(forgetful)
            return change(*arguments)

        return run

    monkeypatch.setattr(storage, "create", overtaken(storage.create))
    monkeypatch.setattr(storage, "remove", overtaken(storage.remove))
    compact(forgetful)
    assert files(forgetful) == files(undisturbed)


def test_a_shard_that_is_missing_stops_it(out):
    snapshot = forget_documents(out, ["a0-0"]).snapshot
    (entry,) = [one for one in snapshot.shards() if one.selection is not None]
    (Path(out) / entry.path).unlink()
    with pytest.raises(MissingShardError, match="a0"):
        compact(out)


def test_a_journal_whose_snapshot_never_came_is_begun_again(out):
    forget_documents(out, ["a0-0"])
    stale = {
        "shards_digest": "sha256:0",
        "compaction": {"snapshot": 3, "rewritten": [], "removed_snapshots": [], "removed_files": ["logitcask.json"]},
    }
    (Path(out) / JOURNAL_NAME).write_text(json.dumps(stale))
    compact(out)
    assert (Path(out) / "logitcask.json").exists()
    assert verify(out).faults == ()


def test_a_snapshot_written_meanwhile_is_not_lost(out, monkeypatch):
    publish = snapshot_writer.publish
    forget_documents(out, ["a0-0"])

    def overtaken(*arguments):
        monkeypatch.setattr(snapshot_writer, "publish", publish)
        forget_documents(out, ["a1-0"])
        return publish(*arguments)

    monkeypatch.setattr(snapshot_writer, "publish", overtaken)
    compact(out)
    ids = {part.id for block in shown(out) for part in block.windows.parts}
    assert not {"a0-0", "a1-0"} & ids
    assert len(list(Path(out).glob("targets/*/*.parquet"))) == 3


def test_an_append_must_have_finished(out):
    claim_append(out, Identity(corpus=CorpusInfo(num_files=1, size_bytes=1, fingerprint="more")))
    forget_documents(out, ["a0-0"])
    before = files(out)
    with pytest.raises(IncompleteDatasetError, match="an append is unfinished"):
        compact(out)
    assert files(out) == before


def test_a_damaged_shard_stops_it_before_anything_is_removed(out):
    snapshot = forget_documents(out, ["a0-0"]).snapshot
    (entry,) = [one for one in snapshot.shards() if one.selection is not None]
    path = Path(out) / entry.path
    path.write_bytes(path.read_bytes()[:100] + b"?" + path.read_bytes()[101:])
    before = files(out)
    with pytest.raises(CorruptShardError, match="a0"):
        compact(out)
    assert files(out) == before


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"source": []}', b"[" * 100_000])
def test_a_file_of_rejected_documents_that_is_none_stops_it(out, line):
    [file] = (Path(out) / "rejected").iterdir()
    file.write_bytes(line + b"\n")
    forget_documents(out, ["a0-0"])
    with pytest.raises(CorruptShardError, match=r"rejected/a0-0000\..*\.jsonl: not a file of rejected documents"):
        compact(out)


@pytest.mark.parametrize(
    "path", ["../home/x", "/etc/x", "targets/../x", "unknown/x", "targets/train/a0.parquet", "logitcask.json"]
)
def test_a_journal_that_would_remove_anything_else_is_refused(out, path):
    journal = {"snapshot": 1, "rewritten": [], "removed_snapshots": [], "removed_files": [path]}
    value = {"shards_digest": load_snapshot(out).shards_digest, "compaction": journal}
    (Path(out) / JOURNAL_NAME).write_text(json.dumps(value))
    with pytest.raises(CorruptShardError, match=r"compaction\.json: (not the journal|would remove)"):
        compact(out)
    assert [fault.path for fault in verify(out).faults] in ([], [JOURNAL_NAME])


def test_an_older_snapshot_that_is_damaged_can_be_dropped(out):
    forget_documents(out, ["a0-0"])
    (Path(out) / "snapshots/000001.json").write_bytes(b"")
    with pytest.raises(CorruptShardError, match=r"logitcask compact --drop 1"):
        compact(out)
    compact(out, drop=1)
    assert snapshot_numbers(out) == [3]
    assert verify(out).faults == ()


def test_a_lost_latest_snapshot_can_be_given_up(out):
    forget_documents(out, ["a0-0"])
    (Path(out) / "snapshots/000002.json").unlink()
    with pytest.raises(MissingShardError, match="snapshot 2 was published"):
        compact(out)
    compact(out, drop=2)
    assert load_snapshot(out).number == 1
    assert verify(out).faults == ()


@pytest.mark.parametrize("number", [1, 2, 7])
def test_only_a_damaged_or_lost_snapshot_can_be_dropped(out, number):
    forget_documents(out, ["a0-0"])
    with pytest.raises(UsageError, match=f"--drop {number}: "):
        compact(out, drop=number)
    assert snapshot_numbers(out) == [1, 2]
