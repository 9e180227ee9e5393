"""Writing a dataset from windows and targets, without an annotation job: for imports, experiments and tests.

with DatasetWriter("cask", Identity(tokenizer=..., teacher=..., scheme=..., window_tokens=1024)) as writer:
    for windows, targets in batches:
        writer.write(windows, targets, split="train")
print(writer.snapshot.total().num_positions)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np

from logitcask.schemas import storage
from logitcask.schemas.dataset.commit import commit_shard
from logitcask.schemas.dataset.identity import Identity, differences
from logitcask.schemas.dataset.layout import read_configuration, write_configuration
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot, latest_number
from logitcask.schemas.dataset.snapshot_writer import Draft, entry_of, publish
from logitcask.schemas.dataset.split_summary import SplitSummary, sum_records
from logitcask.schemas.dataset.vocabulary import write_vocabulary
from logitcask.schemas.errors import ConfigurationMismatchError, UsageError
from logitcask.schemas.format.metadata import ALGORITHM_VERSION, FORMAT_VERSION, ShardMetadata, Split
from logitcask.schemas.format.targets import Kind, Targets, Windows
from logitcask.schemas.format.writer import encode_shard
from logitcask.schemas.stats.outlier_windows import find_outliers
from logitcask.schemas.stats.target_statistics import Statistics


class DatasetWriter:
    """Creates a dataset: one shard for each `write`, and a complete snapshot when it is left.

    Every file is created once, and the snapshot last. A program that was killed resumes when it makes the same calls
    again: shards that exist stay as they are.

    Args:
        out: Directory of the dataset: a path or any fsspec URL. Empty, or begun by the same program.
        identity: What the shards are; tokenizer, teacher, scheme and window_tokens are required. The versions are
            those of this release where they are not given.
        pieces: Bytes of each token id, so that windows can be shown as text; None: the dataset does not state them.
        environment: The numeric environment of the targets, as JSON, where it is known.

    Raises:
        UsageError: The identity lacks a required setting, or the directory holds a finished dataset.
        ConfigurationMismatchError: The directory holds a dataset that was begun with another identity.
        ForeignOutputError: The directory holds other files.
    """

    def __init__(
        self,
        out: str,
        identity: Identity,
        *,
        pieces: Sequence[bytes] | None = None,
        environment: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        versions = {
            "algorithm_version": identity.algorithm_version or ALGORITHM_VERSION,
            "format_version": FORMAT_VERSION,
        }
        self._out, self._identity = out, replace(identity, **versions)
        vocabulary_fingerprint = identity.shard_metadata("targets", "train").tokenizer.vocabulary_fingerprint
        self._begin(dict(environment))
        if pieces is not None:
            write_vocabulary(out, pieces, vocabulary_fingerprint)
        self._entries: list[ShardEntry] = []
        self._splits: dict[str, SplitSummary] = {}
        self._snapshot: Snapshot | None = None

    def _begin(self, environment: dict[str, Any]) -> None:
        begun = read_configuration(self._out)
        if begun is None:
            write_configuration(self._out, identity=self._identity, environment=environment)
            return
        lines = differences(begun.identity, self._identity, "job")
        if lines:
            raise ConfigurationMismatchError(
                f"{storage.redact(self._out)} was begun with another identity:\n  " + "\n  ".join(lines)
            )
        if latest_number(self._out):
            raise UsageError(f"{storage.redact(self._out)}: holds a finished dataset; choose another directory")

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that was published."""
        assert self._snapshot is not None, "`finish` publishes the snapshot"
        return self._snapshot

    def write(
        self,
        windows: Windows,
        targets: Targets,
        *,
        split: Split = "train",
        name: str | None = None,
        **description: Any,
    ) -> UnitRecord:
        """Writes one shard and its record.

        Args:
            windows: W windows of T positions in all.
            targets: A target for each of the T positions; those of context and prompt rows are empty.
            split: The split that the shard belongs to.
            name: Name of the shard; None: its number.
            description: Further fields of the record (`UnitRecord`): environment, timings, by_source, ...

        Returns:
            The shard's record.

        Raises:
            UsageError: Windows and targets do not fit together, or do not fit the identity.
            VocabularyError: A token or head id is negative or not below the vocabulary's size.
            ConfigurationMismatchError: The directory holds another shard of this name.
        """
        name = name or f"{len(self._entries):06d}"
        record = write_shard(
            self._out, self._identity.shard_metadata("targets", split), name, windows, targets, **description
        )
        self._entries.append(entry_of(record))
        self._splits = sum_records([record], before=self._splits)
        return record

    def finish(self, *, rejected: Mapping[str, int] = MappingProxyType({})) -> Snapshot:
        """Publishes the snapshot of all shards.

        Args:
            rejected: Reason to number of documents that could not be annotated.

        Raises:
            UsageError: No window was written, or another program has finished the dataset.
        """
        if not self._entries:
            raise UsageError(f"{storage.redact(self._out)}: no windows were written, so there is no dataset to finish")
        num_documents = sum(summary.num_documents for summary in self._splits.values())
        draft = Draft(
            complete=True,
            identity=self._identity,
            num_documents_in=num_documents + sum(rejected.values()),
            rejected=dict(rejected),
            splits=self._splits,
            shards=sorted(self._entries, key=lambda entry: (entry.split, entry.name)),
        )
        self._snapshot = publish(self._out, draft, 1)
        if self._snapshot is None:
            raise UsageError(f"{storage.redact(self._out)}: another program has finished this dataset")
        return self._snapshot

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._snapshot is None:
            self.finish()


def write_shard(
    out: str, metadata: ShardMetadata, name: str, windows: Windows, targets: Targets | None, **description: Any
) -> UnitRecord:
    """Encodes windows and their targets as one shard, and commits it with its record.

    Args:
        out: The dataset's directory.
        metadata: What the shard is: of targets, or of tokens alone.
        name: Name of the shard.
        windows: W windows of T positions in all.
        targets: A target for each position; None in a token shard.
        description: Further fields of the record.

    Raises:
        UsageError: Windows and targets do not fit together, or do not fit the metadata.
        VocabularyError: A token or head id is negative or not below the vocabulary's size.
        ConfigurationMismatchError: The directory holds another shard of this name.
    """
    _check_fit(metadata, windows, targets)
    shard = encode_shard(windows, targets, metadata)
    if targets is not None:
        found = {"statistics": Statistics.of(windows, targets), "extremes": find_outliers(name, windows, targets)}
        description = {**found, **description}
    record = UnitRecord(
        name=name, kind=metadata.kind, split=metadata.split, num_documents=windows.num_documents(), **description
    )
    committed = commit_shard(out, shard, record)
    if committed.digest != shard.digest:
        raise ConfigurationMismatchError(
            f"{storage.redact(out)}: holds another {metadata.split} shard {name!r}; remove the directory, or give the "
            "same windows and targets as before"
        )
    return committed


def _check_fit(metadata: ShardMetadata, windows: Windows, targets: Targets | None) -> None:
    longest = int(np.diff(windows.window_offsets).max(initial=0))
    if longest > metadata.window_tokens:
        raise UsageError(f"a window of {longest} positions, where window_tokens is {metadata.window_tokens}")
    if targets is None:
        return
    if targets.num_positions != windows.num_positions:
        raise UsageError(f"{targets.num_positions} targets for windows of {windows.num_positions} positions")
    different = np.flatnonzero(targets.has_target() != windows.has_target())
    if len(different):
        row = int(different[0])
        kind, expected = Kind(windows.kind[row]).name.lower(), "needs a" if windows.has_target()[row] else "has no"
        raise UsageError(f"position {row} is of kind {kind}, which {expected} target ({len(different)} such positions)")
    if metadata.has_entropy and targets.entropy is None:
        raise UsageError("the identity says that entropies are stored, but these targets have none")
    num_samples = metadata.scheme.num_tail_samples if metadata.scheme else 0
    if len(targets.tail_samples) < num_samples:
        raise UsageError(f"{len(targets.tail_samples)} tail samples, where the scheme has {num_samples}")
