"""A dataset: a directory of immutable shards with a record beside each, and numbered snapshots of them.

    OUT/logitcask.json                        what the dataset is: the resolved configuration, made first
    OUT/tokens/<split>/<name>.parquet|.json   token shards and their records
    OUT/tokens/units/<name>.json              made last: what a token unit found, rejected and wrote
    OUT/targets/<split>/<name>.parquet|.json  target shards and their records
    OUT/tokenizer/pieces.json                 the bytes of every id, so that windows can be read as text
    OUT/rejected/<name>.jsonl                 documents that could not be annotated, with the reason
    OUT/snapshots/<number>.json               a snapshot: totals, statistics, and whether it is complete
    OUT/snapshots/<number>-<digest>.parquet   the shards it is made of
    OUT/segments/, OUT/attempts/              the job's own: gathered records, and who has a unit in hand

Every file is created once and never changed. A trainer names the snapshot it uses. The list of shards stands in a
file of its own, so that totals and statistics of any number of shards are one small read. What a snapshot leaves out of
its shards are rules (`schemas.rules`); `schemas.snapshot_shard` opens a shard with them.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from schemas import storage
from schemas.errors import (
    CorruptShardError,
    ForeignOutputError,
    IncompleteDatasetError,
    MissingShardError,
    UnknownFormatVersionError,
    UsageError,
)
from schemas.extremes import Extremes, extremes_from_json, merge_extremes
from schemas.fingerprints import digest
from schemas.records import UnitRecord
from schemas.rules import Rules, rules_from_json, rules_to_json
from schemas.running_costs import RunningCost, cost_of_unit, costs_from_json, merge_costs
from schemas.sources import SourceSummary, merge_sources, sources_from_json
from schemas.statistics import Statistics

if TYPE_CHECKING:
    import pyarrow as pa

DATASET_VERSION = 1
CONFIGURATION_NAME = "logitcask.json"
# Row groups of the list of shards: a bounded amount of memory for any number of shards.
_ROW_GROUP_ENTRIES = 50_000
_BATCH_ENTRIES = 5_000
_SNAPSHOT_NAME = re.compile(r"(\d{6})\.json")

Origin = Literal["annotate", "append", "select", "forget", "compact", "merge"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry:
    """One target shard of a snapshot.

    Attributes:
        name, split: Which one.
        path: Relative to the dataset's directory.
        num_windows, num_positions: What the snapshot takes of it.
        size_bytes, digest, footer_digest: Of the file.
        selection: Which of the snapshot's `selections` says what is taken; None: everything.
    """

    name: str
    split: str
    path: str
    num_windows: int
    num_positions: int
    size_bytes: int
    digest: str
    footer_digest: str
    selection: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSummary:
    """Totals over the shards of one split; the last three are empty in snapshots of the first release."""

    num_shards: int = 0
    num_windows: int = 0
    num_positions: int = 0
    num_documents: int = 0
    size_bytes: int = 0
    column_bytes: dict[str, int] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=Statistics)
    by_source: dict[str, SourceSummary] = field(default_factory=dict)
    extremes: Extremes = field(default_factory=dict)
    costs: dict[str, RunningCost] = field(default_factory=dict)

    def plus(self, record: UnitRecord) -> "SplitSummary":
        """The totals with one more shard."""
        columns = self.column_bytes.keys() | record.column_bytes.keys()
        return SplitSummary(
            num_shards=self.num_shards + 1,
            num_windows=self.num_windows + record.num_windows,
            num_positions=self.num_positions + record.num_positions,
            num_documents=self.num_documents + record.num_documents,
            size_bytes=self.size_bytes + record.size_bytes,
            column_bytes={
                name: self.column_bytes.get(name, 0) + record.column_bytes.get(name, 0) for name in sorted(columns)
            },
            statistics=self.statistics + (record.statistics or Statistics()),
            by_source=merge_sources([self.by_source, record.by_source]),
            extremes=merge_extremes([self.extremes, record.extremes]),
            costs=merge_costs([self.costs, cost_of_unit(record.num_positions, record.environment, record.timings)]),
        )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "SplitSummary":
        parsed = {
            "statistics": Statistics.from_json(value["statistics"]),
            "by_source": sources_from_json(value.get("by_source", {})),
            "extremes": extremes_from_json(value.get("extremes", {})),
            "costs": costs_from_json(value.get("costs", {})),
        }
        return cls(**{**value, **parsed})


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A numbered, immutable view of a dataset.

    Attributes:
        url: The dataset's directory.
        number: Counts from 1.
        complete: Whether every planned unit is in it, or set aside with its reason.
        identity: What the shards are: corpus, tokenizer, teacher, scheme and the rest of the resolved configuration.
        num_documents_in: Documents found in the corpus: annotated + rejected, if complete.
        rejected: Reason to number of documents set aside.
        splits: Totals and statistics by split, of what the snapshot takes; sizes are those of whole files.
        shards_file: Name of the file that lists the shards, relative to `snapshots/`.
        shards_digest: Of that file.
        removed: Reason ("forgotten", "not selected") to number of documents that were annotated and then left out.
        selections: The rules that shards of the list refer to.
        made_by: The command that wrote it.
        base: Number of the snapshot it was made from; None for one that was annotated or merged.
        num_missing_units: Planned units that are neither done nor set aside with their documents; 0 if complete.
    """

    url: str
    number: int
    complete: bool
    identity: dict[str, Any]
    num_documents_in: int
    rejected: dict[str, int]
    splits: dict[str, SplitSummary]
    shards_file: str
    shards_digest: str
    removed: dict[str, int] = field(default_factory=dict)
    selections: tuple[Rules, ...] = ()
    made_by: Origin = "annotate"
    base: int | None = None
    num_missing_units: int = 0

    @property
    def name(self) -> str:
        return f"{self.number:06d}"

    @property
    def num_rejected(self) -> int:
        return sum(self.rejected.values())

    @property
    def num_removed(self) -> int:
        return sum(self.removed.values())

    def total(self) -> SplitSummary:
        """Totals over all splits."""
        return sum_summaries(self.splits.values())

    def shards(self, split: str | None = None) -> list[ShardEntry]:
        """The snapshot's shards in its order, of one split or all.

        Raises:
            MissingShardError, CorruptShardError: The list of shards is not there, or not as it was written.
        """
        import io

        import pyarrow.parquet as pq

        url = storage.join(self.url, "snapshots", self.shards_file)
        try:
            data = storage.read_bytes(url)
        except FileNotFoundError as error:
            raise MissingShardError(f"{storage.redact(url)}: the snapshot's list of shards is not there") from error
        if digest(data) != self.shards_digest:
            raise CorruptShardError(f"{storage.redact(url)}: the snapshot's list of shards is not as it was written")
        # Not `read_table`: it imports pandas and pyarrow.dataset, whose threads now and then abort a process that ends.
        rows = pq.ParquetFile(io.BytesIO(data)).read(use_threads=False).to_pylist()
        return [ShardEntry(**row) for row in rows if split is None or row["split"] == split]

    def shard_url(self, entry: ShardEntry) -> str:
        """The file. Who reads targets opens it with `schemas.snapshot_shard.open_shard`, which applies the rules."""
        return storage.join(self.url, entry.path)

    def rules_of(self, entry: ShardEntry) -> Rules:
        """What is left out of a shard."""
        return () if entry.selection is None else self.selections[entry.selection]


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A snapshot to be: everything but its number. The attributes are those of `Snapshot`."""

    complete: bool
    identity: dict[str, Any]
    num_documents_in: int
    rejected: dict[str, int]
    splits: dict[str, SplitSummary]
    shards: Sequence[ShardEntry]
    removed: dict[str, int] = field(default_factory=dict)
    selections: tuple[Rules, ...] = ()
    made_by: Origin = "annotate"
    base: int | None = None
    num_missing_units: int = 0


def configuration_url(out: str) -> str:
    return storage.join(out, CONFIGURATION_NAME)


def shard_path(kind: str, split: str, name: str) -> str:
    """A shard's path, relative to the dataset's directory."""
    return f"{kind}/{split}/{name}.parquet"


def record_path(kind: str, split: str, name: str) -> str:
    """The path of the record beside a shard."""
    return f"{kind}/{split}/{name}.json"


def read_configuration(out: str) -> dict[str, Any] | None:
    """The configuration a dataset was begun with; None where nothing was begun.

    Raises:
        ForeignOutputError: The directory holds something, but not a dataset.
        UnknownFormatVersionError: Another version began it.
    """
    try:
        configuration = storage.read_json(configuration_url(out))
    except FileNotFoundError:
        return _nothing_begun(out)
    except ValueError as error:
        raise ForeignOutputError(f"{storage.redact(configuration_url(out))}: not JSON ({error})") from error
    version = configuration.get("dataset_version") if isinstance(configuration, dict) else None
    if version is None:
        raise ForeignOutputError(f"{storage.redact(configuration_url(out))}: not the configuration of a dataset")
    if version != DATASET_VERSION:
        raise UnknownFormatVersionError(
            f"{storage.redact(out)}: dataset version {version}; this release reads {DATASET_VERSION}; "
            "install a newer logitcask"
        )
    return configuration


def _nothing_begun(out: str) -> None:
    held = storage.list_files(out)
    if held:
        raise ForeignOutputError(
            f"{storage.redact(out)}: holds {len(held)} files but no {CONFIGURATION_NAME}, so it is not a dataset "
            f"(first file: {storage.redact(held[0].url)}); choose another output directory"
        )


def write_configuration(out: str, *, identity: dict[str, Any], environment: dict[str, Any]) -> bool:
    """Begins a dataset; False if somebody began it first."""
    value = {"dataset_version": DATASET_VERSION, "identity": identity, "environment": environment}
    return storage.create_json(configuration_url(out), value)


def snapshot_numbers(out: str) -> list[int]:
    """Numbers of all snapshots, rising."""
    names = (storage.file_name(file.url) for file in storage.list_files(storage.join(out, "snapshots")))
    return sorted(int(match[1]) for match in map(_SNAPSHOT_NAME.fullmatch, names) if match)


def load_snapshot(out: str, number: int | None = None) -> Snapshot:
    """A snapshot by number, or the latest.

    Raises:
        IncompleteDatasetError: There is no dataset, no snapshot, or no such snapshot.
        CorruptShardError: What is there is not a snapshot.
        UnknownFormatVersionError: Another version wrote it.
    """
    numbers = snapshot_numbers(out)
    if not numbers:
        raise IncompleteDatasetError(
            f"{storage.redact(out)}: no snapshot here: not a dataset, or its annotation has not finished; "
            "run `logitcask annotate` on it"
        )
    wanted = numbers[-1] if number is None else number
    if wanted not in numbers:
        raise IncompleteDatasetError(f"{storage.redact(out)}: no snapshot {wanted}; there are {numbers}")
    url = storage.join(out, "snapshots", f"{wanted:06d}.json")
    try:
        return _parse_snapshot(out, storage.read_json(url))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UnknownFormatVersionError):
            raise
        raise CorruptShardError(f"{storage.redact(url)}: not a snapshot ({error})") from error


def latest_snapshot(out: str) -> Snapshot | None:
    """The latest snapshot, or None."""
    return load_snapshot(out) if snapshot_numbers(out) else None


def complete_snapshot(out: str, number: int | None = None) -> Snapshot:
    """A snapshot that may be trained on.

    Raises:
        IncompleteDatasetError: There is none, or it is not complete. And all that `load_snapshot` raises.
    """
    snapshot = load_snapshot(out, number)
    if not snapshot.complete:
        raise IncompleteDatasetError(
            f"{storage.redact(out)}: snapshot {snapshot.number} is not complete: the annotation was cut short; "
            "run the same `logitcask annotate` again to finish it"
        )
    return snapshot


def write_snapshot(
    out: str,
    *,
    complete: bool,
    identity: dict[str, Any],
    records: Iterable[UnitRecord],
    num_documents_in: int,
    rejected: dict[str, int],
) -> Snapshot:
    """Writes the next snapshot over finished target shards, or returns the latest if it says the same.

    Args:
        out: The dataset's directory.
        complete: Whether every planned unit is done or set aside.
        identity: See `Snapshot`.
        records: Of the target shards; those not "done" are passed over.
        num_documents_in: Documents found in the corpus.
        rejected: Reason to documents set aside.
    """
    done = sorted((r for r in records if r.status == "done"), key=lambda r: (r.split, r.name))
    draft = Draft(
        complete=complete,
        identity=identity,
        num_documents_in=num_documents_in,
        rejected=rejected,
        splits=sum_records(done),
        shards=tuple(entry_of(record) for record in done),
    )
    return write_draft(out, draft)


def write_draft(out: str, draft: Draft) -> Snapshot:
    """Writes the next snapshot, or returns the latest if it says the same."""
    latest = latest_snapshot(out)
    number = latest.number + 1 if latest else 1
    while latest is None or not is_draft_of(draft, latest):
        snapshot = publish(out, draft, number)
        if snapshot is not None:
            return snapshot
        latest = load_snapshot(out, number)
        number += 1
    return latest


def publish(out: str, draft: Draft, number: int) -> Snapshot | None:
    """Writes a snapshot under a number; None if somebody took the number first."""
    shards = _encode_entries(draft.shards)
    snapshot = _numbered(out, draft, shards, number)
    storage.create(storage.join(out, "snapshots", snapshot.shards_file), shards)
    url = storage.join(out, "snapshots", f"{snapshot.name}.json")
    return snapshot if storage.create_json(url, _snapshot_json(snapshot)) else None


def draft_digest(draft: Draft) -> str:
    """The digest that the draft's list of shards will have."""
    return digest(_encode_entries(draft.shards))


def is_draft_of(draft: Draft, snapshot: Snapshot) -> bool:
    """Whether a snapshot says what a draft would."""
    planned = _numbered(snapshot.url, draft, _encode_entries(draft.shards), snapshot.number)
    return _snapshot_json(planned) == _snapshot_json(snapshot)


def _numbered(out: str, draft: Draft, shards: bytes, number: int) -> Snapshot:
    fields = {name: getattr(draft, name) for name in Draft.__dataclass_fields__ if name != "shards"}
    return Snapshot(
        url=out,
        number=number,
        **{
            **fields,
            "rejected": dict(sorted(draft.rejected.items())),
            "removed": dict(sorted(draft.removed.items())),
        },
        shards_file=f"{number:06d}-{digest(shards)[-12:]}.parquet",
        shards_digest=digest(shards),
    )


def sum_summaries(summaries: Iterable[SplitSummary]) -> SplitSummary:
    """Totals over totals."""
    parts = list(summaries)
    return SplitSummary(
        num_shards=sum(part.num_shards for part in parts),
        num_windows=sum(part.num_windows for part in parts),
        num_positions=sum(part.num_positions for part in parts),
        num_documents=sum(part.num_documents for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
        column_bytes={
            name: sum(part.column_bytes.get(name, 0) for part in parts)
            for name in sorted({name for part in parts for name in part.column_bytes})
        },
        statistics=Statistics.merge(part.statistics for part in parts),
        by_source=merge_sources(part.by_source for part in parts),
        extremes=merge_extremes(part.extremes for part in parts),
        costs=merge_costs(part.costs for part in parts),
    )


def sum_records(
    records: Iterable[UnitRecord], before: Mapping[str, SplitSummary] = MappingProxyType({})
) -> dict[str, SplitSummary]:
    """Totals by split, on top of those `before`."""
    splits = dict(before)
    for record in records:
        splits[record.split] = splits.get(record.split, SplitSummary()).plus(record)
    return splits


def entry_of(record: UnitRecord, selection: int | None = None) -> ShardEntry:
    """A shard's line in the list."""
    return ShardEntry(
        name=record.name,
        split=record.split,
        path=shard_path("targets", record.split, record.name),
        num_windows=record.num_windows,
        num_positions=record.num_positions,
        size_bytes=record.size_bytes,
        digest=record.digest,
        footer_digest=record.footer_digest,
        selection=selection,
    )


def _encode_entries(entries: Sequence[ShardEntry]) -> bytes:
    """The list of shards as Parquet, some rows at a time: there may be a million."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"num_windows": pa.int64(), "num_positions": pa.int64(), "size_bytes": pa.int64(), "selection": pa.int32()}
    names = list(ShardEntry.__dataclass_fields__)
    if all(entry.selection is None for entry in entries):
        # As the first release wrote it, so that a list which says the same has the same digest.
        names.remove("selection")
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        batches = _entry_batches(iter(entries), schema)
        while group := list(itertools.islice(batches, _ROW_GROUP_ENTRIES // _BATCH_ENTRIES)):
            writer.write_table(pa.Table.from_batches(group).combine_chunks())
    return sink.getvalue()


def _entry_batches(entries: Iterator[ShardEntry], schema: "pa.Schema") -> "Iterator[pa.RecordBatch]":
    """Entries as columns, soon: as objects they take three times the memory."""
    import pyarrow as pa

    while lot := list(itertools.islice(entries, _BATCH_ENTRIES)):
        columns = [pa.array([getattr(entry, name) for entry in lot], schema.field(name).type) for name in schema.names]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    fields = asdict(snapshot)
    del fields["url"]
    fields["selections"] = [rules_to_json(rules) for rules in snapshot.selections]
    return {"dataset_version": DATASET_VERSION, **_string_keys(fields)}


def _string_keys(value: Any) -> Any:
    """As JSON would give it back, so that a written and a read snapshot compare equal."""
    if isinstance(value, dict):
        return {str(key): _string_keys(one) for key, one in value.items()}
    return value


def _parse_snapshot(out: str, value: dict[str, Any]) -> Snapshot:
    fields = dict(value)
    version = fields.pop("dataset_version")
    if version != DATASET_VERSION:
        raise UnknownFormatVersionError(
            f"{storage.redact(out)}: a snapshot of dataset version {version}; this release reads {DATASET_VERSION}; "
            "install a newer logitcask"
        )
    fields["splits"] = {split: SplitSummary.from_json(summary) for split, summary in fields["splits"].items()}
    # Snapshots of the first release have none.
    fields["selections"] = tuple(rules_from_json(rules) for rules in fields.get("selections", []))
    return Snapshot(url=out, **fields)


def require_split(snapshot: Snapshot, split: str) -> None:
    """Raises UsageError if the snapshot has no windows of a split."""
    if snapshot.splits.get(split, SplitSummary()).num_windows == 0:
        raise UsageError(
            f"{storage.redact(snapshot.url)}: snapshot {snapshot.number} has no {split} windows; "
            "annotate again with another --held-out share"
        )
