"""`merge`: one dataset from several snapshots, if the same teacher annotated all of them in the same way.

Shards are copied, not referred to, so the new dataset does not depend on the old ones. What their snapshots leave out
is not copied. Targets keep the same bytes.

If two datasets have different shards with one name, the later shard gets another name. One shard in two datasets is
refused, because its documents would be learned twice. Documents with one id in two datasets are both kept.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from logitcask.schemas import storage
from logitcask.schemas.dataset import snapshot_writer
from logitcask.schemas.dataset.identity import CorpusInfo, Identity, differences, joined_licenses
from logitcask.schemas.dataset.layout import read_configuration, read_rejected, rejected_path, write_configuration
from logitcask.schemas.dataset.shard_view import parts_of_shards
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot, complete_snapshot, load_snapshot
from logitcask.schemas.dataset.snapshot_writer import Draft
from logitcask.schemas.dataset.vocabulary import VOCABULARY_PATH
from logitcask.schemas.errors import ConfigurationMismatchError, UsageError
from logitcask.schemas.fingerprints import fingerprint
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.maintenance.rewrite_shard import copy_shard, rewritten_name
from logitcask.schemas.output_place import require_output_directory
from logitcask.schemas.stats.sum_by_key import sum_by_key


@dataclass(frozen=True, kw_only=True, slots=True)
class Merging:
    """What `merge` did.

    Attributes:
        out: The new dataset.
        snapshot: Number of its snapshot.
        num_shards, num_documents, num_positions: Its contents.
        shared_ids: Number of ids that documents in more than one dataset have: `forget` removes all such documents.
        notes: Further warnings.
    """

    out: str
    snapshot: int
    num_shards: int
    num_documents: int
    num_positions: int
    shared_ids: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def merge(urls: Sequence[str], out: str) -> Merging:
    """Writes a dataset from the latest complete snapshots of others. The same call resumes an interrupted merge.

    Raises:
        UsageError: There is nothing to merge, or one shard is in two of them.
        ConfigurationMismatchError: Their targets have different meanings, or `out` was started with other inputs.
        ForeignOutputError: `out` holds something else.
        IncompleteDatasetError, MissingShardError, CorruptShardError: A dataset cannot be read completely.
    """
    if len(urls) < 2:
        raise UsageError("merge what? Give the directories of two or more datasets")
    require_output_directory(out)
    snapshots = [complete_snapshot(url) for url in urls]
    for one in snapshots[1:]:
        _check_same_targets(snapshots[0], one)
    names = _names(snapshots)
    identity = _identity(snapshots)
    _begin(out, identity, snapshots[0])
    records = [copy_shard(one, entry, out, names[index, entry.path]) for index, one, entry in _shards(snapshots)]
    _copy_other_files(snapshots, out)
    records.sort(key=lambda record: (record.split, record.name))
    draft = Draft.of_records(
        records,
        complete=True,
        identity=identity,
        num_documents_in=sum(one.num_documents_in for one in snapshots),
        rejected=dict(sum((Counter(one.rejected) for one in snapshots), Counter())),
        skipped_files=sum_by_key(one.skipped_files for one in snapshots),
        removed=dict(sum((Counter(one.removed) for one in snapshots), Counter())),
        made_by="merge",
    )
    snapshot = snapshot_writer.publish(out, draft, 1) or load_snapshot(out, 1)
    total = snapshot.total()
    return Merging(
        out=storage.redact(out),
        snapshot=snapshot.number,
        num_shards=total.num_shards,
        num_documents=total.num_documents,
        num_positions=total.num_positions,
        shared_ids=_count_shared_ids(snapshots),
        notes=tuple(_notes(snapshots)),
    )


def _shards(snapshots: Sequence[Snapshot]) -> Iterator[tuple[int, Snapshot, ShardEntry]]:
    return ((index, one, entry) for index, one in enumerate(snapshots) for entry in one.shards())


def _check_same_targets(first: Snapshot, other: Snapshot) -> None:
    where = (f"in {storage.redact(first.url)}", f"in {storage.redact(other.url)}")
    lines = differences(first.identity, other.identity, "targets", where=where)
    if not lines:
        # The metadata of the shards decides, not only the identity of the dataset.
        lines = differences(_of_first_shard(first), _of_first_shard(other), "targets", where=where)
    if lines:
        raise ConfigurationMismatchError(
            "targets that were annotated with different settings cannot be merged:\n  "
            + "\n  ".join(lines)
            + "\nAnnotate both with the same teacher and settings"
        )


def _of_first_shard(snapshot: Snapshot) -> Identity:
    for entry in snapshot.shards():
        with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
            return Identity.of_shards(reader.metadata)
    raise UsageError(f"{storage.redact(snapshot.url)}: snapshot {snapshot.number} has no shards; leave it out")


def _names(snapshots: Sequence[Snapshot]) -> dict[tuple[int, str], str]:
    """The new name of each shard, by the number of its dataset and its path there."""
    owners: dict[str, int] = {}
    taken: set[str] = set()
    names: dict[tuple[int, str], str] = {}
    for index, one, entry in _shards(snapshots):
        owner = owners.setdefault(entry.digest, index)
        if owner != index:
            raise UsageError(
                f"{storage.redact(one.shard_url(entry))} is also in {storage.redact(snapshots[owner].url)}: its "
                "documents would be learned twice. Merge datasets of different corpora, or leave one of them out"
            )
        name = rewritten_name(one, entry) if one.rules_of(entry) else entry.name
        if name in taken:
            name = f"{name}-{entry.digest[-12:]}"
        taken.add(name)
        names[index, entry.path] = name
    return names


def _identity(snapshots: Sequence[Snapshot]) -> Identity:
    """The first dataset's identity, for what is appended later, with the corpora, licenses and origins of all."""
    first = snapshots[0].identity
    teacher_license = joined_licenses([_teacher_license(one) for one in snapshots])
    corpora = [corpus for one in snapshots for corpus in one.identity.corpora]
    return replace(
        first,
        teacher=replace(first.teacher, licence=teacher_license) if first.teacher else None,
        corpus=CorpusInfo(
            num_files=sum(corpus.num_files for corpus in corpora),
            size_bytes=sum(corpus.size_bytes for corpus in corpora),
            fingerprint=fingerprint([corpus.fingerprint for corpus in corpora]),
        ),
        corpus_licence=joined_licenses([one.identity.corpus_licence for one in snapshots]),
        appended=(),
        merged=tuple(
            {
                "dataset": storage.redact(one.url),
                "snapshot": one.number,
                "shards_digest": one.shards_digest,
                "corpora": [asdict(corpus) for corpus in one.identity.corpora],
                "corpus_licence": one.identity.corpus_licence,
                "teacher": {
                    "name": one.identity.teacher.name if one.identity.teacher else None,
                    "licence": _teacher_license(one),
                },
                "merged": list(one.identity.merged),
            }
            for one in snapshots
        ),
    )


def _teacher_license(snapshot: Snapshot) -> str | None:
    return snapshot.identity.teacher.licence if snapshot.identity.teacher else None


def _begin(out: str, identity: Identity, first: Snapshot) -> None:
    """Creates the output, or checks that it was started as the same merge."""
    begun = read_configuration(out)
    if begun is None:
        source = read_configuration(first.url)
        write_configuration(out, identity=identity, environment=source.environment if source else {})
        begun = read_configuration(out)
    assert begun is not None
    lines = differences(begun.identity, identity, "job")
    if lines:
        raise ConfigurationMismatchError(
            f"{storage.redact(out)} was started with other inputs:\n  " + "\n  ".join(lines) + "\nChoose another --out"
        )


def _copy_other_files(snapshots: Sequence[Snapshot], out: str) -> None:
    """Copies the rejected documents and the vocabulary."""
    for one in snapshots:
        for path, data in read_rejected(one.url):
            name = storage.file_name(path).partition(".")[0]
            storage.create(storage.inside(out, rejected_path(name, data)), data)
    vocabulary = storage.inside(snapshots[0].url, VOCABULARY_PATH)
    if storage.exists(vocabulary):
        storage.create(storage.inside(out, VOCABULARY_PATH), storage.read_bytes(vocabulary))


def _count_shared_ids(snapshots: Sequence[Snapshot]) -> int:
    ids = [{part.id for parts in parts_of_shards(one, one.shards()) for part in parts} for one in snapshots]
    return len(set().union(*(one & other for one, other in combinations(ids, 2))))


def _notes(snapshots: Sequence[Snapshot]) -> Iterator[str]:
    shares = [one.identity.held_out for one in snapshots]
    if len(set(shares)) > 1:
        yield (
            f"the held-out shares differ ({', '.join(map(str, shares))}): a document that is in two of the corpora may "
            "be trained on and held out"
        )


def text(merging: Merging) -> str:
    """What was done, as text."""
    held = f"{merging.num_shards:,} shards, {merging.num_documents:,} documents, {merging.num_positions:,} positions"
    lines = [f"{merging.out}: snapshot {merging.snapshot}, {held}", *merging.notes]
    if merging.shared_ids:
        lines.append(
            f"{merging.shared_ids:,} document ids occur in several datasets; `logitcask forget` removes all of them"
        )
    return "\n".join(lines)
