"""New snapshots over the shards of the latest: `select` and `forget`. No shard changes, and no older snapshot.

A shard that a rule changes nothing of keeps its entry and the statistics of its record. One that it changes is read
whole, and counted as a reader of the new snapshot will see it: numbers of documents, windows, positions and targets
are exact, and so are the statistics, of the stored (quantised) targets. Its top-1 agreement is not known, because
shards do not store the most probable id, nor is what came from which group of sources, unless there was only one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from schemas import storage
from schemas.dataset import Origin, ShardEntry, Snapshot, complete_snapshot, record_path
from schemas.errors import MissingShardError, UnknownDocumentError, UsageError
from schemas.extremes import Extremes, find_extremes, merge_extremes
from schemas.progress import shard_progress
from schemas.reader import Block, ShardReader
from schemas.records import UnitRecord, read_record
from schemas.rules import Rule, Rules
from schemas.selection import choose, parts_taken
from schemas.snapshot_shard import SnapshotShard
from schemas.snapshot_writing import Draft, entry_of, publish
from schemas.sources import SourceSummary
from schemas.statistics import Statistics
from schemas.summaries import sum_records
from schemas.targets import Part

NOT_SELECTED, FORGOTTEN = "not selected", "forgotten"
# Opening a shard on an object store is mostly waiting.
_NUM_READERS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Derivation:
    """A snapshot and the one it was made from; they are the same where nothing had to change."""

    base: Snapshot
    snapshot: Snapshot


def select_rows(out: str, rule: Rule, *, snapshot: int | None = None) -> Derivation:
    """Writes a snapshot of what a rule takes of another one.

    Args:
        out: Directory of the dataset.
        rule: What to take.
        snapshot: Which one to select from; None: the latest. From an older one, what was selected since is undone. What
            was forgotten since stays forgotten.

    Raises:
        IncompleteDatasetError: There is no complete snapshot.
        UsageError: The rule asks for what the shards do not hold, or would leave nothing to learn.
        MissingShardError, CorruptShardError: A shard cannot be read.
    """
    return _derive(out, rule, "select", NOT_SELECTED, snapshot)


def forget_documents(out: str, ids: Sequence[str]) -> Derivation:
    """Writes a snapshot without some documents.

    Raises:
        UnknownDocumentError: The latest snapshot neither holds a document of one of the ids nor has forgotten it.
        IncompleteDatasetError, MissingShardError, CorruptShardError: As for `select_rows`.
    """
    base = complete_snapshot(out)
    held = {part.id for parts in parts_of_shards(base, base.shards()) for part in parts}
    unknown = [id_ for id_ in ids if id_ not in held | _forgotten(base.selections)]
    if unknown:
        raise UnknownDocumentError(
            f"{storage.redact(out)}: snapshot {base.number} has no document {unknown[0]!r}"
            f"{f' ({len(unknown)} such ids)' if len(unknown) > 1 else ''}; nothing was forgotten. Ids are those of "
            "`logitcask.parts` in the shards: a record's own, or FILE#ROW"
        )
    return _derive(out, Rule(forgotten=tuple(sorted(set(ids)))), "forget", FORGOTTEN)


def _forgotten(selections: Iterable[Rules]) -> set[str]:
    """Ids of all documents that rules forget."""
    return {id_ for rules in selections for rule in rules for id_ in rule.forgotten}


def parts_of_shards(snapshot: Snapshot, entries: Sequence[ShardEntry]) -> list[tuple[Part, ...]]:
    """The parts of each shard as they were written, rules or not: footers only."""

    def parts_of(entry: ShardEntry) -> tuple[Part, ...]:
        with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
            return reader.parts

    with ThreadPoolExecutor(_NUM_READERS) as pool:
        return list(pool.map(parts_of, entries))


def _derive(out: str, rule: Rule, made_by: Origin, reason: str, number: int | None = None) -> Derivation:
    while True:
        latest = complete_snapshot(out)
        base = latest if number is None else complete_snapshot(out, number)
        forgotten = {*rule.forgotten, *(() if base.number == latest.number else _forgotten(latest.selections))}
        whole_rule = replace(rule, forgotten=tuple(sorted(forgotten)))
        views = _views(base, whole_rule, made_by)
        if base.number == latest.number and not any(view.is_changed for view in views):
            return Derivation(base=base, snapshot=base)
        snapshot = publish(out, _draft(base, views, whole_rule, made_by, reason), latest.number + 1)
        if snapshot is not None:
            return Derivation(base=base, snapshot=snapshot)
        # Somebody wrote a snapshot meanwhile: what it says must not be lost.


def _views(base: Snapshot, rule: Rule, made_by: Origin) -> "list[View]":
    entries = base.shards()
    return [_view(base, entry, rule) for entry in shard_progress(entries, made_by, len(entries))]


def _draft(base: Snapshot, views: "Sequence[View]", rule: Rule, made_by: Origin, reason: str) -> Draft:
    """The snapshot to be."""
    kept = [view for view in views if view.record.num_windows]
    splits = sum_records(view.record for view in kept)
    if made_by == "select" and not any(part.statistics.targets for part in splits.values()):
        raise UsageError(
            f"{storage.redact(base.url)}: nothing that has a target would be left of snapshot {base.number}; widen the "
            "selection (`logitcask inspect` shows what there is)"
        )
    selections = list(dict.fromkeys(view.rules for view in kept if view.rules))
    # A shard of which nothing is left takes its rules along, but what was forgotten must not be asked for again.
    unsaid = {*_forgotten(base.selections), *rule.forgotten} - _forgotten(selections)
    if unsaid:
        selections.append((Rule(forgotten=tuple(sorted(unsaid))),))
    num_removed = base.total().num_documents - sum(part.num_documents for part in splits.values())
    return Draft(
        complete=base.complete,
        identity=base.identity,
        num_documents_in=base.num_documents_in,
        rejected=base.rejected,
        removed=dict(Counter(base.removed) + Counter({reason: num_removed})),
        splits=splits,
        shards=tuple(entry_of(view.record, selections.index(view.rules) if view.rules else None) for view in kept),
        selections=tuple(selections),
        made_by=made_by,
        base=base.number,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A shard as a snapshot shows it.

    Attributes:
        record: Its record, with counts and statistics of what is left.
        rules: What is left out; none where that is nothing.
        is_changed: Whether the last rule leaves out anything that the others did not.
    """

    record: UnitRecord
    rules: Rules
    is_changed: bool


def _view(base: Snapshot, entry: ShardEntry, rule: Rule) -> View:
    record = stored_record(base, entry)
    before = base.rules_of(entry)
    with ShardReader(base.shard_url(entry), footer_digest=entry.footer_digest) as reader:
        _check_columns(reader, rule)
        parts = [part for part, stays in zip(reader.parts, parts_taken(reader.parts, before), strict=True) if stays]
        is_changed = not parts_taken(tuple(parts), (rule,)).all()
        if rule.concerns_positions and not is_changed:
            is_changed = any(
                not choose(block.windows, block.targets, (rule,)).takes_all
                for block in _blocks(SnapshotShard(reader, before))
                if block.targets is not None
            )
        rules = (*before, rule) if is_changed else before
        return View(
            record=describe_view(record, reader, rules) if rules else record, rules=rules, is_changed=is_changed
        )


def stored_record(snapshot: Snapshot, entry: ShardEntry) -> UnitRecord:
    """The record beside a shard.

    Raises:
        MissingShardError: There is none.
    """
    url = storage.join(snapshot.url, record_path("targets", entry.split, entry.name))
    try:
        return read_record(url)
    except FileNotFoundError as error:
        raise MissingShardError(f"{storage.redact(url)}: no record; run `logitcask annotate` to rebuild it") from error


def _check_columns(reader: ShardReader, rule: Rule) -> None:
    if rule.bounds_entropy and not reader.metadata.has_entropy:
        raise UsageError(
            f"{storage.redact(reader.url)}: no column `entropy`, so nothing can be selected by it; annotate with "
            "--entropy"
        )


def describe_view(record: UnitRecord, reader: ShardReader, rules: Rules) -> UnitRecord:
    """A shard's record as if what the rules leave were all of it; sizes stay those of the file.

    Reads the whole shard. Timings go: they are the cost of rows that are no longer counted.
    """
    statistics, extremes = Statistics(), Extremes()
    num_windows = num_positions = 0
    for block in _blocks(SnapshotShard(reader, rules)):
        assert block.targets is not None, "target shards only"
        statistics += Statistics.of(block.windows, block.targets)
        found = find_extremes(record.name, block.windows, block.targets)
        extremes = merge_extremes([extremes, _shift(found, num_windows)])
        num_windows += block.windows.num_windows
        num_positions += block.windows.num_positions
    stays = parts_taken(reader.parts, rules)
    num_documents = sum(part.offset == 0 for part, one in zip(reader.parts, stays, strict=True) if one)
    summary = SourceSummary(num_documents=num_documents, num_positions=num_positions, statistics=statistics)
    return replace(
        record,
        num_windows=num_windows,
        num_positions=num_positions,
        num_documents=num_documents,
        statistics=statistics,
        by_source=dict.fromkeys(record.by_source, summary) if len(record.by_source) == 1 else {},
        extremes=extremes,
        timings={},
    )


def _shift(extremes: Extremes, num_windows: int) -> Extremes:
    """Windows counted in the shard, not in the block that starts at window `num_windows`."""
    return {
        measure: tuple(replace(one, window=one.window + num_windows) for one in found)
        for measure, found in extremes.items()
    }


def _blocks(shard: SnapshotShard) -> Iterator[Block]:
    return (shard.read(start, stop) for start, stop in shard.blocks())
