"""Checks snapshots: against the records of their shards, and each against the ones before and after it.

A snapshot cannot be exchanged for an older one unnoticed: the next snapshot, and the file that says that it was
published, hold its digest; and its first list of shards, or a later selection, shows what it was.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping

from logitcask.schemas import storage
from logitcask.schemas.dataset.appends import unfinished_appends
from logitcask.schemas.dataset.snapshot import Snapshot, load_snapshot, snapshot_numbers, snapshot_url
from logitcask.schemas.dataset.snapshot_writer import published_line
from logitcask.schemas.dataset.split_summary import SplitSummary
from logitcask.schemas.errors import LogitcaskError
from logitcask.schemas.fingerprints import digest
from logitcask.schemas.maintenance.faults import Fault, Finding, Note

_LIST_NAME = re.compile(r"(\d{6})-.*\.parquet")
_SNAPSHOT_NAME = re.compile(r"\d{6}\.(json|sha256)")
_PUBLISHED_NAME = re.compile(r"(\d{6})\.sha256")
# Snapshots of the first release have none of these.
_LATER_SUMS = ("by_source", "extremes", "costs")


def check_counts(snapshot: Snapshot, splits: Mapping[str, SplitSummary] | None) -> Iterator[Fault]:
    """Checks what a snapshot says of its shards.

    Args:
        snapshot: The snapshot.
        splits: Sums over the records of its shards, as it shows them; None if not all of them can be read.
    """
    path = f"snapshots/{snapshot.name}.json" if snapshot.number else "snapshots"
    if not snapshot.complete:
        yield Fault(
            path=path,
            error="IncompleteDatasetError",
            what="the dataset is partial; run the same `logitcask annotate` again to finish it",
        )
    accounted = snapshot.total().num_documents + snapshot.num_rejected + snapshot.num_removed
    if snapshot.complete and accounted != snapshot.num_documents_in:
        counts = f"{snapshot.num_documents_in} documents in, but {accounted} annotated, rejected or removed"
        yield Fault.damaged(path, counts)
    if splits is None:
        return
    for split in sorted({*splits, *snapshot.splits}):
        stated, found = (one.get(split, SplitSummary()) for one in (snapshot.splits, splits))
        for one in dataclasses.fields(SplitSummary):
            values = getattr(stated, one.name), getattr(found, one.name)
            is_unknown = one.name in _LATER_SUMS and not values[0] and not snapshot.is_sealed
            if values[0] != values[1] and not is_unknown:
                which = "" if dataclasses.is_dataclass(values[0]) or isinstance(values[0], dict) else f": {values[0]}"
                yield Fault.damaged(path, f"{split}: {one.name}{which} is not that of its shards' records")


def check_snapshots(out: str, current: Snapshot) -> Iterator[Finding]:
    """Checks all snapshots, except for what `check_counts` does.

    Args:
        out: The dataset's directory.
        current: One of them that has been read.
    """
    snapshots: dict[int, Snapshot] = {}
    for number in snapshot_numbers(out):
        try:
            snapshots[number] = current if number == current.number else load_snapshot(out, number)
            if number != current.number:
                # Reads the whole list and checks its digest.
                next(snapshots[number].each_shard(), None)
        except LogitcaskError as error:
            yield Fault.of(f"snapshots/{number:06d}.json", error)
    names = [storage.file_name(file.url) for file in storage.list_members(out, "snapshots")]
    yield from _digest_faults(out, names, snapshots)
    for number, snapshot in snapshots.items():
        path = f"snapshots/{snapshot.name}.json"
        if not snapshot.is_sealed:
            yield Note(path=path, what="an earlier release wrote it without a seal, so it cannot be checked")
        if (
            snapshot.base is not None
            and snapshot.base in snapshots
            and not _follows(snapshots[snapshot.base], snapshot)
        ):
            base = f"snapshots/{snapshot.base:06d}.json"
            yield Fault.damaged(
                base, f"snapshot {number} was made from it, but selects from rows that it does not show"
            )
        older = [one.number for one in snapshots.values() if one.number < number and _is_equal(one, snapshot)]
        evidence = _evidence(snapshot, names) if older else ""
        if evidence:
            yield Fault.damaged(
                path,
                f"equal to snapshot {older[-1]}, but {evidence}; it may show rows that were left out: restore the file",
            )
    yield from _unnamed_lists(names, snapshots)


def _unnamed_lists(names: list[str], snapshots: Mapping[int, Snapshot]) -> Iterator[Note]:
    named = {one.shards_file for one in snapshots.values()}
    # A snapshot that cannot be read may name its list.
    unread = {name[:6] for name in names if _SNAPSHOT_NAME.fullmatch(name)} - {one.name for one in snapshots.values()}
    for name in names:
        if _LIST_NAME.fullmatch(name) and name not in named and name[:6] not in unread:
            what = "no snapshot names this list of shards; `logitcask clean` removes it after an interrupted run"
            yield Note(path=f"snapshots/{name}", what=what)


def _digest_faults(out: str, names: list[str], snapshots: Mapping[int, Snapshot]) -> Iterator[Fault]:
    """Faults that the digests of snapshot files show, wherever they are written."""
    digests: dict[int, str] = {}
    for number in snapshot_numbers(out):
        digests[number] = digest(storage.read_bytes(snapshot_url(out, number)))
    for name in names:
        match = _PUBLISHED_NAME.fullmatch(name)
        if match is None:
            continue
        number, path = int(match[1]), f"snapshots/{match[1]}.json"
        line = storage.read_bytes(snapshot_url(out, number, "sha256"))
        if number not in digests:
            what = f"published, but missing; restore it, or give it up: `logitcask compact --drop {number}`"
            yield Fault(path=path, error="MissingShardError", what=what)
        elif line != published_line(number, digests[number]):
            yield Fault.damaged(path, f"not the file whose digest is in snapshots/{name}, or that file is damaged")
    for snapshot in snapshots.values():
        previous = snapshot.previous
        if previous is not None and digests.get(previous.number, previous.digest) != previous.digest:
            path = f"snapshots/{previous.number:06d}.json"
            yield Fault.damaged(path, f"not the file that snapshot {snapshot.number} followed; restore it")


def _is_equal(older: Snapshot, newer: Snapshot) -> bool:
    """Whether a snapshot shows and says what an older one does."""
    same = {"number": older.number, "previous": older.previous, "shards_file": older.shards_file}
    return dataclasses.replace(newer, **same, is_sealed=older.is_sealed) == older


def _evidence(snapshot: Snapshot, names: list[str]) -> str:
    """What shows that another snapshot had this number."""
    lists = [name for name in names if name.startswith(f"{snapshot.name}-") and name != snapshot.shards_file]
    if lists:
        return f"snapshots/{lists[0]} lists the shards of another one"
    if not snapshot.shards_file.startswith(f"{snapshot.name}-"):
        return f"it names the list of shards {snapshot.shards_file}"
    appends = unfinished_appends(snapshot)
    return f"appends/{appends[0]}.json says that a corpus was being appended" if appends else ""


def _follows(base: Snapshot, derived: Snapshot) -> bool:
    """Whether the rules of a selection are those of the snapshot it was made from, and at most one more."""
    if derived.made_by not in ("select", "forget"):
        return True
    before = {*base.selections, ()}
    return all(rules in before or rules[:-1] in before for rules in derived.selections)
