"""Accounts for every file of a dataset that is neither a snapshot nor one of its shards."""

import json
import re
from collections.abc import Iterator, Mapping

from logitcask.schemas import storage
from logitcask.schemas.checked_json import InvalidValueError
from logitcask.schemas.dataset.appends import read_append
from logitcask.schemas.dataset.identity import differences
from logitcask.schemas.dataset.layout import (
    CONFIGURATION_NAME,
    named_digest,
    read_configuration,
    record_path,
    shard_path,
)
from logitcask.schemas.dataset.record import read_record
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot
from logitcask.schemas.dataset.token_unit_record import TokenUnitRecord, read_token_unit
from logitcask.schemas.dataset.vocabulary import VOCABULARY_PATH, read_vocabulary
from logitcask.schemas.errors import LogitcaskError
from logitcask.schemas.fingerprints import digest
from logitcask.schemas.maintenance.compact import JOURNAL_NAME, read_journal
from logitcask.schemas.maintenance.faults import Fault, Finding, Note
from logitcask.schemas.maintenance.verify_shards import check_file, check_token_shard
from logitcask.schemas.seals import is_sealed

_SNAPSHOT_FILE = re.compile(r"\d{6}\.json|\d{6}\.sha256|\d{6}-.*\.parquet")


def check_files(
    snapshot: Snapshot, listed: Mapping[str, ShardEntry], other: Mapping[str, ShardEntry]
) -> Iterator[Finding]:
    """Checks all files below a dataset's directory that the checks of snapshots and of target shards do not read.

    Args:
        snapshot: A snapshot of the dataset.
        listed: Its shards, by path.
        other: Shards that only other snapshots list, by path.
    """
    out = snapshot.url
    tree = sorted(storage.list_tree(out))
    paths = [path for path in tree if not path.rpartition("/")[2].startswith(storage.TEMPORARY_PREFIX)]
    known = set(paths)
    for required in (CONFIGURATION_NAME, *(path for path in other if path not in known)):
        if required not in known:
            what = (
                "missing; restore it" if required == CONFIGURATION_NAME else "missing, but an older snapshot lists it"
            )
            yield Fault(path=required, error="MissingShardError", what=what)
    check = _FileCheck(snapshot, listed, other, known)
    for path in paths:
        try:
            yield from check.findings(path)
        except LogitcaskError as error:
            yield Fault.of(path, error)
        except FileNotFoundError:
            # A running job removes leases and temporary files.
            continue
    yield from check.rejected_findings()


class _FileCheck:
    """The checks of one dataset."""

    def __init__(
        self,
        snapshot: Snapshot,
        listed: Mapping[str, ShardEntry],
        other: Mapping[str, ShardEntry],
        known: set[str],
    ) -> None:
        self._snapshot, self._listed, self._other, self._known = snapshot, listed, other, known
        self._num_lines: dict[str, int] = {}
        self._units: list[TokenUnitRecord] = []

    def findings(self, path: str) -> Iterator[Finding]:
        """What is wrong with a file, or cannot be checked.

        Raises:
            LogitcaskError: It cannot be read.
        """
        stem, _, suffix = path.rpartition("/")[2].rpartition(".")
        match path.split("/"):
            case [name] if name == CONFIGURATION_NAME:
                yield from self._configuration(path)
            case [name] if name == JOURNAL_NAME:
                read_journal(self._snapshot.url)
                yield Note(path=path, what="files are still being erased; run `logitcask compact` again")
            case ["tokenizer", _] if path == VOCABULARY_PATH:
                read_vocabulary(self._snapshot.url, self._snapshot.identity.vocabulary_fingerprint)
                yield from self._unsealed(path)
            case ["snapshots", name] if _SNAPSHOT_FILE.fullmatch(name):
                return
            case ["targets", "train" | "held-out" as split, _] if suffix == "parquet":
                yield from self._target_shard(path, split, stem)
            case ["targets", "train" | "held-out" as split, _] if suffix == "json":
                yield from self._record("targets", split, stem)
            case ["tokens", "train" | "held-out" as split, _] if suffix == "parquet":
                yield from check_token_shard(self._snapshot.url, split, stem)
            case ["tokens", "train" | "held-out" as split, _] if suffix == "json":
                yield from self._record("tokens", split, stem)
            case ["tokens", "units", _] if suffix == "json":
                yield from self._token_unit(path, stem)
            case ["rejected", _] if suffix == "jsonl":
                yield from self._rejected(path)
            case ["segments", _] if suffix == "parquet":
                yield from self._named_by_digest(path)
            case ["appends", _] if suffix == "json":
                yield from self._claim(path, stem)
            # The plan of a corpus, hashes of its documents, and leases: only jobs read them.
            case ["corpus", _] if suffix == "parquet":
                return
            case ["tokens", "documents", _] if suffix == "bin":
                return
            case ["attempts", _] if suffix == "json":
                return
            case _:
                yield Note(path=path, what="not a file of a dataset")

    def _url(self, path: str) -> str:
        return storage.inside(self._snapshot.url, path)

    def _unsealed(self, path: str) -> Iterator[Note]:
        if not is_sealed(storage.read_bytes(self._url(path))):
            yield Note(path=path, what="an earlier release wrote it without a seal, so its contents cannot be checked")

    def _configuration(self, path: str) -> Iterator[Finding]:
        configuration = read_configuration(self._snapshot.url)
        assert configuration is not None, "the file exists"
        where = ("in the configuration", f"in snapshot {self._snapshot.number}")
        for line in differences(configuration.identity, self._snapshot.identity, "dataset", where=where):
            yield Fault.damaged(path, f"{line}; restore the file")
        yield from self._unsealed(path)

    def _target_shard(self, path: str, split: str, name: str) -> Iterator[Finding]:
        if path in self._listed:
            return
        entry = self._other.get(path)
        if entry is None and record_path("targets", split, name) not in self._known:
            yield Note(
                path=path, what="no snapshot lists it, and it has no record; `logitcask annotate` or `clean` does"
            )
            return
        stated = entry or read_record(self._url(record_path("targets", split, name)))
        check_file(self._url(path), stated.size_bytes, stated.digest)
        if entry is None:
            yield Note(path=path, what="no snapshot lists it; a run is unfinished, or `logitcask clean` removes it")

    def _record(self, kind: str, split: str, name: str) -> Iterator[Finding]:
        path, shard = record_path(kind, split, name), shard_path(kind, split, name)
        if shard in self._listed:
            # Read with its shard.
            yield from self._unsealed(path)
            return
        record = read_record(self._url(path))
        if (record.kind, record.split, record.name) != (kind, split, name):
            yield Fault.damaged(path, f"it is the record of {record.split} {record.kind} {record.name!r}; restore both")
        if record.status == "rejected" and record.rejected and not self._has_rejected(name):
            yield from self._lost_lines(path)
        if record.status == "done" and kind == "targets" and shard not in self._known:
            yield Note(path=path, what="its shard does not exist; `logitcask annotate` makes it again")
        yield from self._unsealed(path)

    def _token_unit(self, path: str, name: str) -> Iterator[Finding]:
        unit = read_token_unit(self._url(path))
        if unit.name != name:
            yield Fault.damaged(path, f"it is the record of the unit {unit.name!r}; restore both")
            return
        self._units.append(unit)
        for shard in unit.shards:
            record = record_path("tokens", shard.split, shard.name)
            if record in self._known and read_record(self._url(record)).footer_digest != shard.footer_digest:
                yield Fault.damaged(
                    path, f"another footer than {record} says; restore both, or remove both and run again"
                )
        yield from self._unsealed(path)

    def _rejected(self, path: str) -> Iterator[Finding]:
        data = storage.read_bytes(self._url(path))
        self._num_lines[path] = data.count(b"\n")
        try:
            for line in data.splitlines():
                if not isinstance(json.loads(line), dict):
                    raise InvalidValueError(f"not an object: {line[:80]!r}")
        except ValueError as error:
            yield Fault.damaged(path, f"not lines of JSON ({error}); restore the file")
            return
        yield from self._named_by_digest(path)

    def _named_by_digest(self, path: str) -> Iterator[Finding]:
        expected, found = named_digest(path), digest(storage.read_bytes(self._url(path)))
        if expected is None:
            yield Note(
                path=path, what="an earlier release wrote it without a digest, so its contents cannot be checked"
            )
        elif not found.endswith(expected):
            yield Fault.damaged(path, f"its name says the digest …{expected}, found …{found[-12:]}; restore the file")

    def _claim(self, path: str, name: str) -> Iterator[Finding]:
        claim = read_append(self._snapshot.url, name)
        if claim.corpus is None or claim.corpus.fingerprint != name:
            yield Fault.damaged(path, "the claim of another corpus; restore the file")
        yield from self._unsealed(path)

    def rejected_findings(self) -> Iterator[Finding]:
        """Rejected documents that token units count, but no file lists. Call it after all files were checked."""
        for unit in self._units:
            if self._lines_of(unit.name) < sum(unit.rejected.values()):
                yield from self._lost_lines(f"tokens/units/{unit.name}.json")

    def _lost_lines(self, path: str) -> Iterator[Finding]:
        # `compact` erases the lines of documents that were left out.
        if not self._snapshot.num_removed:
            what = "it counts rejected documents that no file in rejected/ lists; restore the files"
            yield Fault(path=path, error="MissingShardError", what=what)

    def _has_rejected(self, unit: str) -> bool:
        return any(path.startswith(f"rejected/{unit}") for path in self._known)

    def _lines_of(self, unit: str) -> int:
        return sum(lines for path, lines in self._num_lines.items() if path.startswith(f"rejected/{unit}-"))
