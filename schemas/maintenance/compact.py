"""`compact`: erases from the disk what the latest snapshot leaves out. No other operation removes old snapshots.

1. It rewrites the shards that rules change, without what the rules leave out, under new names, with records.
2. It creates `OUT/compaction.json`: the number of the next snapshot, and every file to be removed.
3. It writes the snapshot over the new shards. Up to here no reader loses anything.
4. It removes files: first snapshots that list a removed shard, so that no snapshot lists a shard that does not exist;
   then shards and records that no snapshot needs, token shards with a document that is left out, and the lines on such
   documents in `rejected/`.
5. It removes `OUT/compaction.json`.

After a kill before step 3 it starts over (names follow from contents, so it finds what it wrote); after a later kill it
continues from step 4. Two concurrent runs compute the same journal, one writes the snapshot, and both remove the files.
Token shards are removed whole and not rewritten: they are the checkpoint of a finished job.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from msgspec import Meta

from logitcask.schemas import storage
from logitcask.schemas.checked_json import Count, Digest, FileName, InvalidValueError, convert, named
from logitcask.schemas.dataset import snapshot_writer
from logitcask.schemas.dataset.appends import unfinished_appends
from logitcask.schemas.dataset.layout import CONFIGURATION_NAME, FOLDERS, read_rejected, rejected_path
from logitcask.schemas.dataset.shard_view import parts_of_shards, stored_record
from logitcask.schemas.dataset.snapshot import (
    ShardEntry,
    Snapshot,
    complete_snapshot,
    load_snapshot,
    published_numbers,
    snapshot_numbers,
    snapshot_url,
)
from logitcask.schemas.dataset.snapshot_writer import Draft
from logitcask.schemas.dataset.vocabulary import VOCABULARY_PATH
from logitcask.schemas.errors import (
    CorruptShardError,
    IncompleteDatasetError,
    MissingShardError,
    UnknownFormatVersionError,
    UsageError,
)
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.maintenance.rewrite_shard import copy_shard, rewritten_name
from logitcask.schemas.seals import create_sealed, read_sealed

JOURNAL_NAME = "compaction.json"
# A file in the dataset's directory or in one of its folders, perhaps a temporary one.
_REMOVABLE = rf"^(({'|'.join(FOLDERS)})/(\w[\w-]*/)?)?(\.tmp-)?\w[^/\\]*\Z"
# Since 2, the journal has a seal (`schemas.seals`), and says its version.
JOURNAL_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Compaction:
    """What `compact` did.

    Attributes:
        snapshot: Number of the latest snapshot.
        rewritten: Names of the rewritten shards.
        removed_snapshots: Numbers of the removed snapshots.
        removed_files: Removed paths, relative to the dataset's directory.
    """

    snapshot: Count
    rewritten: tuple[FileName, ...]
    removed_snapshots: tuple[Count, ...]
    removed_files: tuple[Annotated[str, Meta(pattern=_REMOVABLE)], ...]

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Journal:
    """`compaction.json`: what to do once the snapshot with this list of shards is published."""

    shards_digest: Digest
    compaction: Compaction


def compact(out: str, *, drop: int | None = None) -> Compaction:
    """Erases everything that the latest snapshot does not show.

    Args:
        out: The dataset's directory.
        drop: Number of a snapshot that is damaged or missing, to be given up first.

    Raises:
        UsageError: That snapshot can be read, or never existed.
        IncompleteDatasetError: There is no complete snapshot, or an append has not finished.
        MissingShardError, CorruptShardError: A shard cannot be read; nothing was removed.
    """
    if drop is not None:
        _drop(out, drop)
    journal = _published_journal(out)
    if journal is None:
        journal = _prepare(out)
    else:
        snapshot_writer.mark_published(out, journal.compaction.snapshot)
    _check_removals(out, journal.compaction)
    for path in journal.compaction.removed_files:
        storage.remove_member(out, path)
    storage.remove(_journal_url(out))
    return journal.compaction


def _check_removals(out: str, compaction: Compaction) -> None:
    """Refuses a journal that would remove what the snapshot shows: `_removals` did not write it."""
    snapshot = load_snapshot(out, compaction.snapshot)
    needed = {CONFIGURATION_NAME, VOCABULARY_PATH, f"snapshots/{snapshot.name}.json"}
    needed |= {f"snapshots/{snapshot.shards_file}", *(entry.path for entry in snapshot.each_shard())}
    needed &= {*compaction.removed_files}
    if needed:
        raise CorruptShardError(
            f"{storage.redact(_journal_url(out))}: would remove {min(needed)}, which snapshot {snapshot.number} needs; "
            "nothing was removed: remove this file and run again"
        )


def _drop(out: str, number: int) -> None:
    """Gives up a snapshot that cannot be read, even if it is the latest."""
    try:
        # Reads the whole list and checks its digest.
        next(load_snapshot(out, number).each_shard(), None)
    except IncompleteDatasetError as error:
        if not storage.exists(snapshot_url(out, number, "sha256")):
            raise UsageError(f"--drop {number}: {error}") from error
    except (CorruptShardError, MissingShardError, UnknownFormatVersionError):
        pass
    else:
        raise UsageError(
            f"--drop {number}: snapshot {number} of {storage.redact(out)} is not damaged; `logitcask compact` removes "
            "older snapshots when they show more than the latest one"
        )
    for suffix in ("sha256", "json"):
        storage.remove_member(out, f"snapshots/{number:06d}.{suffix}")


def _prepare(out: str) -> _Journal:
    """Steps 1 to 3."""
    journal = None
    while journal is None:
        numbers = snapshot_numbers(out)
        try:
            journal = _try_to_prepare(out)
        except (FileNotFoundError, MissingShardError):
            # A concurrent run may remove what this run reads: then its journal exists, or a snapshot does not.
            journal = _published_journal(out)
            if journal is None and snapshot_numbers(out) == numbers:
                raise
    return journal


def _try_to_prepare(out: str) -> _Journal | None:
    """Steps 1 to 3; None if another command has published a snapshot, which must not be lost."""
    base = complete_snapshot(out)
    _require_no_append(base)
    draft, rewritten = _draft(base)
    is_new = bool(rewritten)
    number = base.number + 1 if is_new else base.number
    old = [load_snapshot(out, one) for one in snapshot_numbers(out)]
    compaction = _removals(base, draft, [one for one in old if one.number < number], number, rewritten)
    shards_digest = snapshot_writer.draft_digest(draft) if is_new else base.shards_digest
    journal = _Journal(shards_digest=shards_digest, compaction=compaction)
    _write_journal(out, journal)
    if not is_new or snapshot_writer.publish(out, draft, number) is not None:
        return journal
    # Two concurrent runs compute the same journal: one publishes the snapshot, and both remove the files.
    theirs = _published_journal(out)
    if theirs is None:
        storage.remove(_journal_url(out))
    return theirs


def _require_no_append(base: Snapshot) -> None:
    begun = unfinished_appends(base)
    if begun:
        raise IncompleteDatasetError(
            f"{storage.redact(base.url)}: an append is unfinished, and no snapshot lists its shards yet "
            f"({len(begun)} begun); run the same `logitcask annotate --append` again, then compact"
        )


def _draft(base: Snapshot) -> tuple[Draft, tuple[str, ...]]:
    """The snapshot without rules, and the names of the shards that were written for it."""
    records = [
        copy_shard(base, entry, base.url, rewritten_name(base, entry))
        if base.rules_of(entry)
        else stored_record(base, entry)
        for entry in base.shards()
    ]
    draft = Draft.of_records(
        records,
        complete=base.complete,
        identity=base.identity,
        num_documents_in=base.num_documents_in,
        rejected=base.rejected,
        skipped_files=base.skipped_files,
        removed=base.removed,
        made_by="compact",
        base=base.number,
    )
    kept = {entry.name for entry in base.shards()}
    return draft, tuple(record.name for record in records if record.name not in kept)


def _removals(base: Snapshot, draft: Draft, old: list[Snapshot], number: int, rewritten: tuple[str, ...]) -> Compaction:
    """What to remove, computed before anything is removed, so that a killed run can be finished."""
    kept = {entry.path for entry in draft.shards}
    dropped = [one for one in old if not {entry.path for entry in one.shards()} <= kept]
    lost = [entry for one in dropped for entry in one.shards() if entry.path not in kept]
    documents = _documents(base, lost) - _documents(base, draft.shards)
    # First what says that they were published: a snapshot is never missed while it is being removed.
    paths = [f"snapshots/{number:06d}.sha256" for number in _published_without(old, base, dropped)]
    paths += [f"snapshots/{one.name}.json" for one in dropped]
    paths += [f"snapshots/{one.shards_file}" for one in dropped]
    paths += _unneeded_shards(base.url, kept)
    if documents:
        paths += _token_shards_with(base.url, documents)
        paths += _rewrite_rejected(base.url, {source for _, source in documents})
    paths += _leftovers(base.url)
    return Compaction(
        snapshot=number,
        rewritten=rewritten,
        removed_snapshots=tuple(one.number for one in dropped),
        removed_files=tuple(dict.fromkeys(paths)),
    )


def _published_without(old: list[Snapshot], base: Snapshot, dropped: list[Snapshot]) -> list[int]:
    """Numbers of published snapshots that are dropped, or missing already."""
    kept = {one.number for one in [*old, base]} - {one.number for one in dropped}
    return [number for number in published_numbers(base.url) if number not in kept and number <= base.number]


def _documents(base: Snapshot, entries: Iterable[ShardEntry]) -> set[tuple[str, str]]:
    """Id and source of every document in shards, rules or not."""
    unique = list({entry.path: entry for entry in entries}.values())
    return {(part.id, part.source) for parts in parts_of_shards(base, unique) for part in parts}


def _unneeded_shards(out: str, kept: set[str]) -> list[str]:
    """Target shards that no snapshot will list, and their records."""
    found = [_path_below(file.url, 3) for file in storage.list_members(out, "targets")]
    shards = [path for path in found if path.endswith(".parquet") and path not in kept]
    # A record without a shard belongs to a unit whose documents were all rejected; it remains.
    return [path for shard in shards for path in (shard, shard.removesuffix(".parquet") + ".json")]


def _token_shards_with(out: str, documents: set[tuple[str, str]]) -> list[str]:
    found = []
    for file in storage.list_members(out, "tokens"):
        if not file.url.endswith(".parquet"):
            continue
        with ShardReader(file.url) as reader:
            if any((part.id, part.source) in documents for part in reader.parts):
                path = _path_below(file.url, 3)
                found += [path, path.removesuffix(".parquet") + ".json"]
    return found


def _rewrite_rejected(out: str, sources: set[str]) -> list[str]:
    """Files of rejected documents with lines on these sources; their other lines are written under a new name."""
    found = []
    for path, content in read_rejected(out):
        lines = content.splitlines(keepends=True)
        with named(
            storage.join(out, path),
            what="a file of rejected documents",
            advice="restore or remove it; nothing was removed",
        ):
            others = [line for line in lines if _source_of(line) not in sources]
        if len(others) < len(lines):
            data, name = b"".join(others), storage.file_name(path)
            if others:
                storage.create(storage.inside(out, rejected_path(name.partition(".")[0], data)), data)
            found.append(f"rejected/{name}")
    return found


def _source_of(line: bytes) -> str:
    """The source of a rejected document. (Not `parse_object`: a rejected text may be any text, also no Unicode.)"""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError("a line that is not JSON") from error
    if not isinstance(value, dict) or not isinstance(value.get("source"), str):
        raise InvalidValueError("a line without a source")
    return value["source"]


def _leftovers(out: str) -> list[str]:
    """Temporary files of killed writers, which may hold any document."""
    if not storage.is_local(out):
        return []
    names = {path: path.rpartition("/")[2] for path in storage.list_tree(out)}
    return sorted(
        path
        for path, name in names.items()
        if name.startswith(storage.TEMPORARY_PREFIX) and (path == name or path.partition("/")[0] in FOLDERS)
    )


def _path_below(url: str, depth: int) -> str:
    """The last `depth` components of a URL; the rest depends on the store."""
    return "/".join(url.split("/")[-depth:])


def _journal_url(out: str) -> str:
    return storage.inside(out, JOURNAL_NAME)


def _write_journal(out: str, journal: _Journal) -> None:
    """Replaces a journal whose snapshot was never published. An equal one, perhaps of a concurrent run, remains."""
    value = {
        "journal_version": JOURNAL_VERSION,
        "shards_digest": journal.shards_digest,
        "compaction": journal.compaction.to_json(),
    }
    if not create_sealed(_journal_url(out), value) and read_journal(out) != journal:
        storage.remove(_journal_url(out))
        create_sealed(_journal_url(out), value)


def _published_journal(out: str) -> _Journal | None:
    """The journal of a compaction whose snapshot is published, so that only files are left to remove."""
    journal = read_journal(out)
    return journal if journal is not None and _is_published(out, journal) else None


def read_journal(out: str) -> _Journal | None:
    """The journal of a compaction that is not finished.

    Raises:
        CorruptShardError: It is damaged.
    """
    try:
        return read_sealed(
            _journal_url(out),
            partial(convert, kind=_Journal),
            version_key="journal_version",
            what="the journal of a compaction",
            advice="remove it and run again",
        )
    except FileNotFoundError:
        return None


def _is_published(out: str, journal: _Journal) -> bool:
    number = journal.compaction.snapshot
    return number in snapshot_numbers(out) and (load_snapshot(out, number).shards_digest == journal.shards_digest)


def text(compaction: Compaction) -> str:
    """What was done, as text."""
    if not compaction.removed_files:
        return f"snapshot {compaction.snapshot} leaves nothing out, and no file is unused: nothing to do"
    lines = [f"snapshot {compaction.snapshot} shows what the latest one showed"]
    if compaction.rewritten:
        lines.append(f"rewritten     {len(compaction.rewritten):,} shards, without what was left out")
    numbers = ", ".join(map(str, compaction.removed_snapshots)) or "none"
    lines.append(
        f"removed       {len(compaction.removed_files):,} files; snapshots that can no longer be read: {numbers}"
    )
    return "\n".join(lines)
