"""`logitcask select`, `forget`, `compact` and `merge`: datasets made from datasets, without a teacher. Light."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from logitcask.schemas.dataset.rules import Rule, TargetKind

if TYPE_CHECKING:
    from logitcask.schemas.maintenance.select_forget import Derivation

_Out = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Select:
    """Write a snapshot of a part of a dataset: some sources, or the positions worth learning from.

    No shard is copied or changed: the snapshot says what is left out of which, and whoever reads it is shown the rest.
    Older snapshots stay as they are. Positions that are not selected stay as context of later ones and lose their
    target. A selection applies to the shards the snapshot has now, not to what is appended later.

    Example:
        logitcask select OUT --source '*/wiki/*' --min-entropy 0.5 --max-loss 8
    """

    out: _Out
    """Directory of the dataset: a path or any fsspec URL."""
    snapshot: int | None = None
    """Number of the snapshot to select from; default: the latest. From an older one, what was selected since is undone
    and what was appended since is left out; what was forgotten since stays forgotten."""
    source: tuple[str, ...] = ()
    """Keep documents whose source (file URL, with or without #ROW) matches one of these shell patterns."""
    min_entropy: float | None = None
    """Keep positions where the teacher's entropy is at least so many nats ..."""
    max_entropy: float | None = None
    """... and at most so many."""
    min_loss: float | None = None
    """Keep positions where the teacher's loss on the actual next token is at least so many nats ..."""
    max_loss: float | None = None
    """... and at most so many."""
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
            raise UsageError("select by what? Give --source, --min-entropy, --max-entropy, --min-loss, ...")
        return _print(select_forget.select_rows(self.out, rule, snapshot=self.snapshot), as_json=self.json)


@dataclass(frozen=True, kw_only=True, slots=True)
class Forget:
    """Leave documents out of a dataset, in all that is read from now on.

    Writes a snapshot with the documents' ids as tombstones; their windows' other documents stay. Always of the latest
    snapshot: an older one may show what was forgotten since. The same again changes nothing. Older snapshots still show
    the documents: `logitcask compact` removes them from the disk, and their ids.

    Example:
        logitcask forget OUT 'letters.jsonl#17' 'letters.jsonl#18'
    """

    out: _Out
    """Directory of the dataset: a path or any fsspec URL."""
    documents: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="DOCUMENT_ID")]]
    """Ids as the shards state them: a record's own, or FILE#ROW. All documents of an id are left out."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        from logitcask.schemas.errors import UsageError
        from logitcask.schemas.maintenance import select_forget

        if not self.documents:
            raise UsageError("forget what? Give the ids of documents")
        return _print(select_forget.forget_documents(self.out, self.documents), as_json=self.json)


@dataclass(frozen=True, kw_only=True, slots=True)
class Compact:
    """Erase from the disk what the latest snapshot leaves out: not to be undone.

    Shards that `select` or `forget` concern are written anew without it. Then go: those shards, shards no snapshot
    needs, token shards and lines of rejected/ with documents that are left out, and every older snapshot that showed
    any of it. A run in progress that reads one of those has to begin again. Killed anywhere, the same command
    finishes; two at once do it together.

    Example:
        logitcask compact OUT
    """

    out: _Out
    """Directory of the dataset: a path or any fsspec URL."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        from logitcask.schemas.maintenance import compact

        result = compact.compact(self.out)
        print(json.dumps(result.to_json(), indent=1) if self.json else compact.text(result))
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """Make one dataset of two or more that the same teacher annotated in the same way.

    The latest snapshots' shards are copied, so that the new dataset needs none of the old ones. Teacher, tokenizer,
    scheme and window must agree; corpora and their licences may differ, and all of them are carried along.

    Example:
        logitcask merge books-cask letters-cask --out both
    """

    datasets: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="DATASET")]]
    """Directories of finished datasets: paths or any fsspec URLs."""
    out: str
    """Directory of the new dataset; a merge that was cut short goes on where it stopped."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        from logitcask.schemas.maintenance import merge

        result = merge.merge(self.datasets, self.out)
        print(json.dumps(result.to_json(), indent=1) if self.json else merge.text(result))
        return 0


def _print(derivation: "Derivation", *, as_json: bool) -> int:
    from logitcask.schemas.maintenance import select_forget

    report = select_forget.describe(derivation)
    print(json.dumps(report, indent=1, ensure_ascii=False) if as_json else select_forget.text(report))
    return 0
