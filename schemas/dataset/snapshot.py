"""A snapshot: a numbered, immutable view of a dataset over shards that never change. Trainers record the one they use.

The list of shards is a separate file, so that totals and statistics of any number of shards are one small read. The
rules of a snapshot (`dataset.rules`) state what it leaves out of its shards; `dataset.shard_view` opens a shard with
them, and `dataset.snapshot_writer` writes the next snapshot.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Literal

from msgspec import Meta

from logitcask.schemas import storage
from logitcask.schemas.checked_json import (
    Count,
    Digest,
    FileName,
    InvalidValueError,
    convert,
    named,
    require_version,
)
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.layout import DATASET_VERSION, shard_path
from logitcask.schemas.dataset.rules import Rules, selections_from_json
from logitcask.schemas.dataset.split_summary import SplitSummary, sum_summaries
from logitcask.schemas.errors import (
    CorruptShardError,
    IncompleteDatasetError,
    MissingShardError,
    UsageError,
)
from logitcask.schemas.fingerprints import digest
from logitcask.schemas.format.metadata import Split
from logitcask.schemas.seals import read_sealed

# The maximum length of a list of shards: a part that is free, a part for each shard, and never more than a gigabyte.
_FREE_LIST_BYTES, _MAX_ROW_BYTES, _MAX_LIST_BYTES = 1 << 20, 1 << 12, 1 << 30
_SNAPSHOT_NAME = re.compile(r"(\d{6})\.(json|sha256)")

Origin = Literal["annotate", "append", "select", "forget", "compact", "merge"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry:
    """One target shard of a snapshot.

    Attributes:
        name, split: Its name and split.
        path: Relative to the dataset's directory.
        num_windows, num_positions: Its windows and positions that the snapshot shows.
        size_bytes, digest, footer_digest: Of the file.
        selection: Index into the snapshot's `selections`; None: the snapshot shows everything.
    """

    name: FileName
    split: Split
    path: str
    num_windows: Count
    num_positions: Count
    size_bytes: Count
    digest: Digest
    footer_digest: Digest
    selection: Count | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviousSnapshot:
    """The snapshot with the next lower number when a snapshot was published.

    Attributes:
        number: Its number.
        digest: Of its file.
    """

    number: Count
    digest: Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A numbered, immutable view of a dataset.

    Attributes:
        url: The dataset's directory.
        number: Counts from 1.
        complete: Whether every unit is finished; a unit whose documents were all rejected is finished.
        identity: The settings of the dataset: corpora, tokenizer, teacher, scheme and the rest.
        num_documents_in: Documents found in the corpus: annotated + rejected, if complete.
        rejected: Number of rejected documents by reason.
        skipped_files: Number of files in the corpus that were not read, by reason.
        splits: Totals and statistics by split, of what the snapshot shows; sizes are those of whole files.
        shards_file: Name of the file that lists the shards, relative to `snapshots/`.
        shards_digest: Of that file.
        removed: Number of annotated documents that were left out later, by reason ("forgotten", "not selected").
        selections: The rules that shards of the list refer to.
        made_by: The command that wrote it.
        base: Number of the snapshot it was made from; None for one that was annotated or merged.
        num_missing_units: Units that are not finished, including quarantined ones; 0 if complete.
        previous: The snapshot before it, so that it cannot be exchanged; None for the first, and in earlier releases.
        is_sealed: Whether its file has a seal; False for one of an earlier release.
    """

    url: str
    number: Annotated[int, Meta(ge=1, lt=1_000_000)]
    complete: bool
    identity: Identity
    num_documents_in: Count
    rejected: dict[str, Count]
    splits: dict[FileName, SplitSummary]
    shards_file: FileName
    shards_digest: Digest
    skipped_files: dict[str, Count] = field(default_factory=dict)
    removed: dict[str, Count] = field(default_factory=dict)
    selections: tuple[Rules, ...] = ()
    made_by: Origin = "annotate"
    base: Count | None = None
    num_missing_units: Count = 0
    previous: PreviousSnapshot | None = None
    is_sealed: bool = True

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
            MissingShardError, CorruptShardError: The list of shards is missing or damaged.
        """
        return list(self.each_shard(split))

    def each_shard(self, split: str | None = None) -> Iterator[ShardEntry]:
        """As `shards`, one by one: a list of a million entries takes almost a gigabyte.

        Raises:
            MissingShardError, CorruptShardError: The list of shards is missing or damaged.
        """
        url = storage.inside(self.url, "snapshots", self.shards_file)
        try:
            max_bytes = _FREE_LIST_BYTES + _MAX_ROW_BYTES * self.total().num_shards
            data = storage.read_bytes(url, max_bytes=min(max_bytes, _MAX_LIST_BYTES))
        except FileNotFoundError as error:
            raise MissingShardError(
                f"{storage.redact(url)}: the snapshot's list of shards is missing; restore the file"
            ) from error
        if digest(data) != self.shards_digest:
            raise CorruptShardError(
                f"{storage.redact(url)}: the snapshot's list of shards is damaged; restore the file"
            )
        paths: set[int] = set()
        for entry in self._read_entries(url, data):
            paths.add(hash(entry.path))
            if split is None or entry.split == split:
                yield entry
        if len(paths) < self.total().num_shards:
            raise CorruptShardError(f"{storage.redact(url)}: lists a shard twice; restore the file")

    def _read_entries(self, url: str, data: bytes) -> Iterator[ShardEntry]:
        import pyarrow as pa

        from logitcask.schemas.dataset.shard_list import read_rows

        with named(url, what="a list of shards", advice="restore the file"):
            try:
                for rows in read_rows(data, self.total().num_shards):
                    for entry in convert(rows, list[ShardEntry]):
                        if entry.path != shard_path("targets", entry.split, entry.name):
                            raise InvalidValueError(f"shard {entry.name!r} has the path {entry.path[:200]!r}")
                        if entry.selection is not None and entry.selection >= len(self.selections):
                            raise InvalidValueError(f"shard {entry.name!r} refers to selection {entry.selection}")
                        yield entry
            except (pa.ArrowException, OSError) as error:
                raise InvalidValueError(str(error)) from error

    def shard_url(self, entry: ShardEntry) -> str:
        """The shard's file. To read targets, open it with `dataset.shard_view.open_shard`, which applies the rules."""
        return storage.inside(self.url, entry.path)

    def rules_of(self, entry: ShardEntry) -> Rules:
        """What is left out of a shard."""
        return () if entry.selection is None else self.selections[entry.selection]


def snapshot_numbers(out: str) -> list[int]:
    """Numbers of all snapshots, ascending."""
    return _numbers(out)[0]


def published_numbers(out: str) -> list[int]:
    """Numbers of all snapshots that say that they were published, ascending; their files may be missing."""
    return _numbers(out)[1]


def latest_number(out: str) -> int | None:
    """Number of the latest snapshot; None if there is none.

    Raises:
        MissingShardError: A later one was published, but its file is missing: an older one may show what it left out.
    """
    numbers, published = _numbers(out)
    latest = max(numbers, default=0)
    if max(published, default=0) > latest:
        lost = published[-1]
        raise MissingShardError(
            f"{storage.redact(out)}: snapshot {lost} was published, but snapshots/{lost:06d}.json is missing; restore "
            f"it, name an older snapshot by its number, or give up snapshot {lost}: `logitcask compact --drop {lost}`"
        )
    return latest or None


def _numbers(out: str) -> tuple[list[int], list[int]]:
    """Numbers of the snapshots that exist, and of those that were published, each ascending."""
    names = (storage.file_name(file.url) for file in storage.list_members(out, "snapshots"))
    found = [match for match in map(_SNAPSHOT_NAME.fullmatch, names) if match]
    exist, published = (sorted(int(one[1]) for one in found if one[2] == suffix) for suffix in ("json", "sha256"))
    return exist, published


def load_snapshot(out: str, number: int | None = None) -> Snapshot:
    """A snapshot by number, or the latest.

    Raises:
        IncompleteDatasetError: There is no dataset, no snapshot, or no such snapshot.
        MissingShardError: The latest snapshot is missing.
        CorruptShardError: The file is not a snapshot, or is damaged.
        UnknownFormatVersionError: Another version wrote it.
    """
    wanted = latest_number(out) if number is None else number
    if wanted is None:
        raise IncompleteDatasetError(
            f"{storage.redact(out)}: no snapshot here: this is not a dataset, or its annotation is unfinished; "
            "run `logitcask annotate` on it"
        )
    numbers = snapshot_numbers(out) if number is not None else [wanted]
    if wanted not in numbers:
        raise IncompleteDatasetError(f"{storage.redact(out)}: no snapshot {wanted}; the dataset has {numbers}")
    return read_sealed(
        snapshot_url(out, wanted),
        partial(_parse_snapshot, out, wanted),
        version_key="dataset_version",
        what="a snapshot",
        advice=f"restore the file; if it is an old snapshot, `logitcask compact --drop {wanted}` gives it up",
    )


def snapshot_url(out: str, number: int, suffix: str = "json") -> str:
    """A snapshot's file; with the suffix "sha256", the file that says that it was published."""
    return storage.inside(out, "snapshots", f"{number:06d}.{suffix}")


def latest_snapshot(out: str) -> Snapshot | None:
    """The latest snapshot, or None."""
    return load_snapshot(out) if latest_number(out) else None


def complete_snapshot(out: str, number: int | None = None) -> Snapshot:
    """A snapshot that may be trained on.

    Raises:
        IncompleteDatasetError: There is none, or it is not complete.
        As `load_snapshot`.
    """
    snapshot = load_snapshot(out, number)
    if not snapshot.complete:
        raise IncompleteDatasetError(
            f"{storage.redact(out)}: snapshot {snapshot.number} is not complete: {snapshot.num_missing_units} units "
            "are not finished; run the same `logitcask annotate` again to finish it, or read it with --allow-partial"
        )
    return snapshot


def _parse_snapshot(out: str, number: int, value: dict[str, Any]) -> Snapshot:
    require_version(value, "dataset_version", DATASET_VERSION)
    given = {"url": out, "identity": {}, "selections": [], "is_sealed": value["dataset_version"] > 1}
    snapshot = convert({**value, **given}, Snapshot)
    if snapshot.number != number:
        raise InvalidValueError(f"it says that it is snapshot {snapshot.number}")
    return replace(
        snapshot,
        identity=Identity.from_json(value.get("identity")),
        # Snapshots of the first release have none.
        selections=selections_from_json(value.get("selections", [])),
    )


def require_split(snapshot: Snapshot, split: str) -> None:
    """Raises UsageError if the snapshot has no windows of a split."""
    if snapshot.splits.get(split, SplitSummary()).num_windows == 0:
        raise UsageError(
            f"{storage.redact(snapshot.url)}: snapshot {snapshot.number} has no {split} windows; "
            "annotate again with another --held-out share"
        )
