"""Checks a dataset: every file against its digest, every row against the rules of the format, every sum again."""

from dataclasses import asdict, dataclass
from typing import Any

from logitcask.schemas import storage
from logitcask.schemas.dataset.partial import readable_snapshot
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot, load_snapshot, snapshot_numbers
from logitcask.schemas.dataset.split_summary import SplitSummary, sum_records
from logitcask.schemas.errors import CorruptShardError, LogitcaskError, MissingShardError, StorageError
from logitcask.schemas.maintenance.faults import Fault, Finding, Note
from logitcask.schemas.maintenance.verify_files import check_files
from logitcask.schemas.maintenance.verify_shards import check_target_shard
from logitcask.schemas.maintenance.verify_snapshots import check_counts, check_snapshots
from logitcask.schemas.terminal.progress import shard_progress

# Notes that the text lists one by one.
_MAX_NOTES = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What `verify` checked and found; notes are no faults."""

    url: str
    snapshot: int
    num_shards: int
    num_positions: int
    size_bytes: int
    faults: tuple[Fault, ...]
    notes: tuple[Note, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """One line per fault and note, then the totals."""
        lines = [f"{fault.path}: {fault.error}: {fault.what}" for fault in self.faults]
        lines += [f"note: {note.path}: {note.what}" for note in self.notes[:_MAX_NOTES]]
        if len(self.notes) > _MAX_NOTES:
            lines.append(f"note: {len(self.notes) - _MAX_NOTES:,} more files, listed by --json")
        name = f"snapshot {self.snapshot}" if self.snapshot else "partial dataset, no snapshot yet"
        checked = f"{name}: {self.num_shards} shards, {self.num_positions:,} positions, "
        verdict = f"{len(self.faults)} faults" if self.faults else "all well"
        return "\n".join([*lines, f"{checked}{self.size_bytes:,} bytes checked: {verdict}"])


def verify(out: str, number: int | None = None) -> Verification:
    """Checks a snapshot with all its shards, and every other file of the dataset. Reads every byte.

    Raises:
        LogitcaskError: There is no snapshot to check. All other faults are in the result.
    """
    try:
        snapshot = readable_snapshot(out, number)
    except (CorruptShardError, MissingShardError) as error:
        return Verification(
            url=storage.redact(out),
            snapshot=number or 0,
            num_shards=0,
            num_positions=0,
            size_bytes=0,
            faults=(Fault.of("snapshots", error),),
        )
    findings: list[Finding] = []
    listed: dict[str, ShardEntry] = {}
    splits: dict[str, SplitSummary] = {}
    is_whole, num_positions, size_bytes = True, 0, 0
    try:
        for entry in shard_progress(snapshot.each_shard(), "verify", snapshot.total().num_shards):
            faults, record = check_target_shard(snapshot, entry)
            findings += faults
            is_whole &= record is not None
            splits = sum_records([record] if record else [], before=splits)
            if entry.path in listed:
                findings.append(Fault.damaged(f"snapshots/{snapshot.shards_file}", f"it lists {entry.path} twice"))
            listed[entry.path] = entry
            num_positions, size_bytes = num_positions + entry.num_positions, size_bytes + entry.size_bytes
    except LogitcaskError as error:
        findings.append(Fault.of(f"snapshots/{snapshot.shards_file}", error))
        is_whole = False
    findings += check_counts(snapshot, splits if is_whole else None)
    findings += check_snapshots(out, snapshot)
    findings += check_files(snapshot, listed, _other_shards(snapshot, listed))
    return Verification(
        url=storage.redact(out),
        snapshot=snapshot.number,
        num_shards=len(listed),
        num_positions=num_positions,
        size_bytes=size_bytes,
        faults=tuple(finding for finding in findings if isinstance(finding, Fault)),
        notes=tuple(finding for finding in findings if isinstance(finding, Note)),
    )


def _other_shards(snapshot: Snapshot, listed: dict[str, ShardEntry]) -> dict[str, ShardEntry]:
    """Shards that only other snapshots list, by path; snapshots that cannot be read are faults already."""
    found: dict[str, ShardEntry] = {}
    for number in snapshot_numbers(snapshot.url):
        try:
            other = load_snapshot(snapshot.url, number)
            if other.shards_digest != snapshot.shards_digest:
                found |= {entry.path: entry for entry in other.each_shard() if entry.path not in listed}
        except StorageError:
            raise
        except LogitcaskError:
            continue
    return found
