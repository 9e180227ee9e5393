"""Removes leftovers of killed runs: temporary files, and files that no snapshot and no unit needs.

Needed are the files that a snapshot lists, every target shard that follows from a token unit's record (a resumed run
would use it), and every token unit's record with the shards it lists. Unknown files are never removed.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from logitcask.pipeline.units.annotation_units import annotation_unit
from logitcask.pipeline.units.evidence import active_leases
from logitcask.pipeline.units.processes import describe_process
from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.layout import FOLDERS, read_configuration
from logitcask.schemas.dataset.snapshot import load_snapshot, snapshot_numbers
from logitcask.schemas.dataset.token_unit_record import read_token_unit_record
from logitcask.schemas.errors import ForeignOutputError, LogitcaskError

Leftover = Literal["temporary file", "token shard", "target shard", "list of shards", "lease"]


class RunIsActiveError(LogitcaskError):
    """A process is working on the dataset."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """A file that is not needed.

    Attributes:
        path: Path relative to the dataset's directory.
        what: Kind of file.
        size_bytes: Its length.
    """

    path: str
    what: Leftover
    size_bytes: int


def clean(out: str, *, older_than: timedelta, dry_run: bool = False) -> list[Removal]:
    """Removes files that are not needed and were not modified recently.

    Args:
        out: The dataset's directory.
        older_than: Files modified within this time are kept: a run may be about to need them.
        dry_run: Remove nothing.

    Returns:
        The files that were, or would be, removed, sorted by path.

    Raises:
        ForeignOutputError: The directory is not a dataset.
        RunIsActiveError: A process of this machine works on it, or one of another machine did recently.
    """
    configuration = read_configuration(out)
    if configuration is None:
        raise ForeignOutputError(f"{storage.redact(out)}: not a dataset")
    before = datetime.now(UTC) - older_than
    fs, root = storage.filesystem(out)
    needed = _Needed(out, configuration.identity)
    _require_no_active_run(out, older_than, needed.finished)
    removals = []
    for path, file in sorted(storage.list_tree(out).items()):
        what = needed.leftover(path)
        if what is not None and _utc(fs.modified(f"{root}/{path}")) <= before:
            removals.append(Removal(path=path, what=what, size_bytes=file.size_bytes))
    for removal in () if dry_run else removals:
        storage.remove_member(out, removal.path)
    return removals


def _require_no_active_run(out: str, older_than: timedelta, finished: Collection[str]) -> None:
    active = active_leases(out, older_than, finished)
    if active:
        raise RunIsActiveError(
            f"{storage.redact(out)}: {describe_process(active[0].process)} has worked on unit {active[0].unit} since "
            f"{active[0].started_at}; clean after the run has ended"
        )


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


class _Needed:
    """The files that snapshots and records refer to."""

    def __init__(self, out: str, identity: Identity) -> None:
        self._lists: set[str] = set()
        self._targets: set[tuple[str, str]] = set()
        self._tokens: set[tuple[str, str]] = set()
        self.finished: set[str] = set()
        for number in snapshot_numbers(out):
            snapshot = load_snapshot(out, number)
            self._lists.add(snapshot.shards_file)
            self._targets |= {(entry.split, entry.name) for entry in snapshot.each_shard()}
        settings_fingerprint = identity.target_fingerprint()
        for file in storage.list_members(out, "tokens/units"):
            unit = read_token_unit_record(out, storage.file_name(file.url).removesuffix(".json"))
            self.finished.add(unit.name)
            self._tokens |= {(shard.split, shard.name) for shard in unit.shards}
            self._targets |= {(shard.split, annotation_unit(shard, settings_fingerprint).name) for shard in unit.shards}
        for file in storage.list_members(out, "targets"):
            if file.url.endswith(".json"):
                self.finished.add(storage.file_name(file.url).removesuffix(".json"))

    def leftover(self, path: str) -> Leftover | None:
        """Kind of an unneeded file; None if the file is needed or unknown."""
        *directories, name = path.split("/")
        if name.startswith(storage.TEMPORARY_PREFIX) and {*directories[:1]} <= {*FOLDERS}:
            return "temporary file"
        stem, _, suffix = name.rpartition(".")
        match directories:
            case ["tokens", "train" | "held-out" as split] if (split, stem) not in self._tokens:
                return "token shard"
            case ["targets", "train" | "held-out" as split] if (split, stem) not in self._targets:
                return "target shard"
            case ["snapshots"] if suffix == "parquet" and name not in self._lists:
                return "list of shards"
            case ["attempts"] if name.rpartition("~")[0] in self.finished:
                return "lease"
        return None


def summary(removals: list[Removal], *, dry_run: bool) -> Iterator[str]:
    """Human-readable lines: each file, then the totals."""
    verb = "would remove" if dry_run else "removed"
    for removal in removals:
        yield f"{verb} {removal.path} ({removal.what}, {removal.size_bytes:,} bytes)"
    kinds = sorted({removal.what for removal in removals})
    counts = ", ".join(f"{kind}: {sum(removal.what == kind for removal in removals):,}" for kind in kinds)
    total = sum(removal.size_bytes for removal in removals)
    yield f"{verb} {len(removals):,} files, {total:,} bytes{f' ({counts})' if counts else ''}"
