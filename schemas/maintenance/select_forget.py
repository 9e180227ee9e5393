"""`select` and `forget`: a new snapshot over existing shards. No shard and no older snapshot changes.

A shard that a rule does not change keeps its entry and the statistics of its record. A shard that a rule changes is
read completely, as a reader of the new snapshot will see it: the numbers of documents, windows, positions and targets
are exact, and so are the statistics of the stored (quantized) targets. Its top-1 agreement is unknown: shards do
not store the most probable id. Its statistics by source are unknown too, unless it has one group of sources.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from logitcask.schemas import storage
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.row_filter import choose, parts_taken
from logitcask.schemas.dataset.rules import Rule, Rules
from logitcask.schemas.dataset.shard_view import SnapshotShard, parts_of_shards, stored_record
from logitcask.schemas.dataset.snapshot import Origin, ShardEntry, Snapshot, complete_snapshot
from logitcask.schemas.dataset.snapshot_writer import Draft, entry_of, publish
from logitcask.schemas.dataset.split_summary import sum_records
from logitcask.schemas.errors import UnknownDocumentError, UsageError
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.maintenance.rewrite_shard import blocks_of, describe_view
from logitcask.schemas.terminal.progress import shard_progress

NOT_SELECTED, FORGOTTEN = "not selected", "forgotten"


@dataclass(frozen=True, kw_only=True, slots=True)
class Derivation:
    """A snapshot and the one it was made from; the same snapshot twice if nothing had to change."""

    base: Snapshot
    snapshot: Snapshot


def select_rows(out: str, rule: Rule, *, snapshot: int | None = None) -> Derivation:
    """Writes a snapshot of the part of another snapshot that a rule takes.

    Args:
        out: Directory of the dataset.
        rule: What to take.
        snapshot: The snapshot to select from; None: the latest. An older one undoes later selections; later forgotten
            documents remain forgotten.

    Raises:
        IncompleteDatasetError: There is no complete snapshot.
        UsageError: The shards lack a column that the rule needs, or no target would remain.
        MissingShardError, CorruptShardError: A shard cannot be read.
    """
    return _derive(out, rule, "select", NOT_SELECTED, snapshot)


def forget_documents(out: str, ids: Sequence[str]) -> Derivation:
    """Writes a snapshot without some documents.

    Raises:
        UnknownDocumentError: The latest snapshot neither holds nor has forgotten a document with one of the ids.
        IncompleteDatasetError, MissingShardError, CorruptShardError: As for `select_rows`.
    """
    base = complete_snapshot(out)
    held = {part.id for parts in parts_of_shards(base, base.shards()) for part in parts}
    unknown = [id_ for id_ in ids if id_ not in held | _forgotten(base.selections)]
    if unknown:
        raise UnknownDocumentError(
            f"{storage.redact(out)}: snapshot {base.number} has no document {unknown[0]!r}"
            f"{f' ({len(unknown)} such ids)' if len(unknown) > 1 else ''}; nothing was forgotten. Ids are those in "
            "`logitcask.parts` of the shards: a record's own id, or FILE#ROW"
        )
    return _derive(out, Rule(forgotten=tuple(sorted(set(ids)))), "forget", FORGOTTEN)


def _forgotten(selections: Iterable[Rules]) -> set[str]:
    """Ids of all documents that rules forget."""
    return {id_ for rules in selections for rule in rules for id_ in rule.forgotten}


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


def _views(base: Snapshot, rule: Rule, made_by: Origin) -> "list[View]":
    entries = base.shards()
    return [_view(base, entry, rule) for entry in shard_progress(entries, made_by, len(entries))]


def _draft(base: Snapshot, views: "Sequence[View]", rule: Rule, made_by: Origin, reason: str) -> Draft:
    """The new snapshot."""
    kept = [view for view in views if view.record.num_windows]
    splits = sum_records(view.record for view in kept)
    if made_by == "select" and not any(part.statistics.targets for part in splits.values()):
        raise UsageError(
            f"{storage.redact(base.url)}: no target of snapshot {base.number} would remain; widen the selection "
            "(`logitcask inspect` shows the contents)"
        )
    selections = list(dict.fromkeys(view.rules for view in kept if view.rules))
    # The rules of a shard without remaining windows are dropped, but the ids it forgot must remain listed.
    unlisted = {*_forgotten(base.selections), *rule.forgotten} - _forgotten(selections)
    if unlisted:
        selections.append((Rule(forgotten=tuple(sorted(unlisted))),))
    num_removed = base.total().num_documents - sum(part.num_documents for part in splits.values())
    return Draft(
        complete=base.complete,
        identity=base.identity,
        num_documents_in=base.num_documents_in,
        rejected=base.rejected,
        skipped_files=base.skipped_files,
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
        record: Its record, with counts and statistics of what remains.
        rules: What is left out; empty if nothing is.
        is_changed: Whether the last rule leaves out anything that the others do not.
    """

    record: UnitRecord
    rules: Rules
    is_changed: bool


def _view(base: Snapshot, entry: ShardEntry, rule: Rule) -> View:
    record = stored_record(base, entry)
    before = base.rules_of(entry)
    with ShardReader(base.shard_url(entry), footer_digest=entry.footer_digest) as reader:
        _check_columns(reader, rule)
        taken = parts_taken(reader.parts, before)
        parts = [part for part, is_taken in zip(reader.parts, taken, strict=True) if is_taken]
        is_changed = not parts_taken(tuple(parts), (rule,)).all()
        if rule.concerns_positions and not is_changed:
            is_changed = any(
                not choose(block.windows, block.targets, (rule,)).takes_all
                for block in blocks_of(SnapshotShard(reader, before))
                if block.targets is not None
            )
        rules = (*before, rule) if is_changed else before
        return View(
            record=describe_view(record, reader, rules) if rules else record, rules=rules, is_changed=is_changed
        )


def _check_columns(reader: ShardReader, rule: Rule) -> None:
    if rule.bounds_entropy and not reader.metadata.has_entropy:
        raise UsageError(
            f"{storage.redact(reader.url)}: no column `entropy`, so it cannot select rows; annotate with --entropy"
        )


_COUNTS = ("documents", "windows", "positions", "targets")


def describe(derivation: Derivation) -> dict[str, Any]:
    """The counts of the old snapshot and the new one, as JSON."""
    base, snapshot = derivation.base, derivation.snapshot
    return {
        "dataset": storage.redact(snapshot.url),
        "base": base.number,
        "snapshot": snapshot.number,
        "before": _counts(base),
        "after": _counts(snapshot),
        "removed": snapshot.removed,
    }


def _counts(snapshot: Snapshot) -> dict[str, int]:
    total = snapshot.total()
    values = (total.num_documents, total.num_windows, total.num_positions, total.statistics.targets)
    return dict(zip(_COUNTS, values, strict=True))


def text(report: dict[str, Any]) -> str:
    """The same as text."""
    if report["base"] == report["snapshot"]:
        return f"snapshot {report['snapshot']} already leaves all of it out: nothing to do"
    lines = [f"snapshot {report['snapshot']}, made from snapshot {report['base']}, which does not change"]
    lines += [f"{name:<10} {report['before'][name]:,} → {report['after'][name]:,}" for name in _COUNTS]
    return "\n".join(lines)
