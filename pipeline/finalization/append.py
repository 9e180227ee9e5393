"""`annotate --append`: adds what is new to a finished dataset, as a snapshot of the old shards and the new ones.

The job is an ordinary one whose identity differs from the dataset's only in the corpus, so its units have other names.
Until all of them are finished, the old snapshot stays the latest; the new one is based on the snapshot that is the
latest then. Rows that `select` and `forget` removed from older shards stay removed; new shards are added whole.
"""

from dataclasses import asdict, replace

from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import AppendedCorpus, joined_licenses
from logitcask.schemas.dataset.snapshot import Snapshot, complete_snapshot
from logitcask.schemas.dataset.snapshot_writer import Draft, publish
from logitcask.schemas.dataset.split_summary import sum_summaries
from logitcask.schemas.errors import IncompleteDatasetError, UsageError
from logitcask.schemas.stats.sum_by_key import sum_by_key


def write_appended(out: str, draft: Draft) -> Snapshot:
    """Writes a snapshot of the latest snapshot's shards and the new ones.

    Raises:
        IncompleteDatasetError: Not all new units are finished.
        UsageError: Part of the corpus is in the dataset already.
    """
    if not draft.complete:
        raise IncompleteDatasetError(
            f"{storage.redact(out)}: {draft.num_missing_units} unit(s) of the new corpus are not finished; the "
            "dataset is unchanged. Run the same command again to finish it"
        )
    while True:
        base = complete_snapshot(out)
        if base.identity.holds(draft.identity.corpus):
            return base
        snapshot = publish(out, _extended(base, draft), base.number + 1)
        if snapshot is not None:
            return snapshot


def _extended(base: Snapshot, draft: Draft) -> Draft:
    shards, added = base.shards(), list(draft.shards)
    twice = sorted({entry.path for entry in shards} & {entry.path for entry in added})
    if twice:
        raise UsageError(
            f"{storage.redact(base.url)}: files of this corpus are in the dataset already ({len(twice)} shard(s), "
            f"first {twice[0]}) and would be trained on twice; append only new files"
        )
    names = [*base.splits, *(name for name in draft.splits if name not in base.splits)]
    assert draft.identity.corpus is not None, "an append has a corpus"
    appended = AppendedCorpus(**asdict(draft.identity.corpus), corpus_licence=draft.identity.corpus_licence)
    return Draft(
        complete=True,
        identity=replace(
            base.identity,
            corpus_licence=joined_licenses([base.identity.corpus_licence, appended.corpus_licence]),
            appended=(*base.identity.appended, appended),
        ),
        num_documents_in=base.num_documents_in + draft.num_documents_in,
        rejected=sum_by_key([base.rejected, draft.rejected]),
        skipped_files=sum_by_key([base.skipped_files, draft.skipped_files]),
        splits={name: sum_summaries(one.splits[name] for one in (base, draft) if name in one.splits) for name in names},
        # Old shards first, so that their windows keep their numbers.
        shards=[*shards, *added],
        removed=base.removed,
        selections=base.selections,
        made_by="append",
        base=base.number,
    )
