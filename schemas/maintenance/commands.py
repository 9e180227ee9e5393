"""`logitcask select`, `forget`, `compact` and `merge`: datasets made from datasets, without a teacher."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Optional

import tyro

from logitcask.schemas.dataset.rules import Rule, TargetKind
from logitcask.schemas.terminal.guard import print_json

_Out = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Select:
    """Write a snapshot of a part of a dataset: some sources, or some positions.

    No shard is copied or changed: the snapshot states what is left out, and every reader applies it. Older snapshots do
    not change. Positions that are not selected lose their target and remain as context of later ones. A selection
    applies to the current shards of the snapshot, not to shards that are appended later.

    Example:
        logitcask select OUT --source '*/wiki/*' --min-entropy 0.5 --max-loss 8
    """

    out: _Out
    """Directory of the dataset: a path or any fsspec URL."""
    snapshot: int | None = None
    """Number of the snapshot to select from; default: the latest. An older one undoes later selections and leaves
    out later appended corpora; later forgotten documents remain forgotten."""
    source: tuple[str, ...] = ()
    """Keep documents whose source (file URL, with or without #ROW) matches one of these shell patterns."""
    min_entropy: float | None = None
    """Keep positions where the teacher's entropy is at least this many nats ..."""
    max_entropy: float | None = None
    """... and at most this many."""
    min_loss: float | None = None
    """Keep positions where the teacher's loss on the actual next token is at least this many nats ..."""
    max_loss: float | None = None
    """... and at most this many."""
    kind: tuple[TargetKind, ...] = ()
    """Keep positions of these kinds."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        from logitcask.schemas.errors import UsageError
        from logitcask.schemas.maintenance import select_forget

        rule = Rule(
            sources=self.source or None,
            min_entropy=self.min_entropy,
            max_entropy=self.max_entropy,
            min_loss=self.min_loss,
            max_loss=self.max_loss,
            kinds=self.kind or None,
        )
        if rule == Rule() and self.snapshot is None:
            raise UsageError("nothing to select by; give --source, --min-entropy, --max-entropy, --min-loss, ...")
        report = select_forget.describe(select_forget.select_rows(self.out, rule, snapshot=self.snapshot))
        return _print(report, select_forget.text(report), as_json=self.json)


@dataclass(frozen=True, kw_only=True, slots=True)
class Forget:
    """Leave documents out of a dataset, for all later readers.

    Writes a snapshot that lists the documents' ids; other documents in the same windows remain. It is always made from
    the latest snapshot, because an older one may show documents that were forgotten later. Forgetting twice changes
    nothing. Older snapshots still show the documents: `logitcask compact` removes them and their ids from the disk.

    Example:
        logitcask forget OUT 'letters.jsonl#17' 'letters.jsonl#18'
    """

    out: _Out
    """Directory of the dataset: a path or any fsspec URL."""
    documents: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="DOCUMENT_ID")]]
    """Ids as in the shards: a record's own id, or FILE#ROW. All documents with an id are left out."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        from logitcask.schemas.errors import UsageError
        from logitcask.schemas.maintenance import select_forget

        if not self.documents:
            raise UsageError("no documents to forget; give their ids")
        report = select_forget.describe(select_forget.forget_documents(self.out, self.documents))
        return _print(report, select_forget.text(report), as_json=self.json)


@dataclass(frozen=True, kw_only=True, slots=True)
class Compact:
    """Erase from the disk what the latest snapshot leaves out. This cannot be undone.

    Rewrites the shards that `select` or `forget` changed. Then removes the old shards, shards that no snapshot needs,
    token shards and lines of rejected/ with documents that are left out, and every older snapshot that showed any of
    it. A training run that reads a removed snapshot must start over. After a kill, run the same command again. Two
    concurrent commands do the same as one.

    Example:
        logitcask compact OUT
    """

    out: _Out
    """Directory of the dataset: a path or any fsspec URL."""
    drop: Optional[int] = None  # noqa: UP045 (tyro checks `int | None` with typeguard, whose import takes 0.1 s)
    """Number of a snapshot that is damaged or missing: give it up. If it is the latest, the one before it becomes the
    latest, and shows what the lost one left out."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        from logitcask.schemas.maintenance import compact

        result = compact.compact(self.out, drop=self.drop)
        return _print(result.to_json(), compact.text(result), as_json=self.json)


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """Make one dataset of two or more that the same teacher annotated in the same way.

    Copies the shards of the latest snapshots, so that the new dataset does not need the old ones. Teacher, tokenizer,
    scheme and window must agree. Corpora and their licenses may differ; the new dataset lists all of them.

    Example:
        logitcask merge books-cask letters-cask --out both
    """

    datasets: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="DATASET")]]
    """Directories of finished datasets: paths or any fsspec URLs."""
    out: str
    """Directory of the new dataset. The same command resumes an interrupted merge."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        from logitcask.schemas.maintenance import merge

        result = merge.merge(self.datasets, self.out)
        return _print(result.to_json(), merge.text(result), as_json=self.json)


def _print(report: Mapping[str, Any], text: str, *, as_json: bool) -> int:
    if as_json:
        print_json(report)
    else:
        print(text)
    return 0
