"""Where the files of a dataset are, and its configuration file.

    OUT/logitcask.json                        the configuration: identity and numeric environment; written first
    OUT/tokens/<split>/<name>.parquet|.json   token shards and their records
    OUT/corpus/<fingerprint>.parquet          the plan of a corpus: its files and the slices that token units read
    OUT/tokens/units/<name>.json              what a token unit read, rejected and wrote; written last
    OUT/tokens/documents/<name>.bin           hashes of a token unit's documents
    OUT/targets/<split>/<name>.parquet|.json  target shards and their records
    OUT/tokenizer/pieces.json                 the bytes of every id, so that windows can be shown as text
    OUT/rejected/<name>.<digits>.jsonl        documents that could not be annotated, with the reason
    OUT/snapshots/<number>.json               a snapshot: totals, statistics, and whether it is complete
    OUT/snapshots/<number>.sha256             says that the snapshot was published, and its digest
    OUT/snapshots/<number>-<digest>.parquet   the list of its shards
    OUT/segments/, OUT/attempts/              internal to the job: gathered records, and the leases of units

Every file is created once and never changed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from logitcask.schemas import storage
from logitcask.schemas.checked_json import convert, require_version
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.errors import CorruptShardError, ForeignOutputError
from logitcask.schemas.fingerprints import digest
from logitcask.schemas.seals import create_sealed, read_sealed

# Since 2, the configuration and snapshots have a seal (`schemas.seals`).
DATASET_VERSION = 2
CONFIGURATION_NAME = "logitcask.json"
_MAX_REJECTED_BYTES = 256 << 20
# A dataset has files of its own in these directories, and directly in its own.
FOLDERS = ("appends", "attempts", "rejected", "segments", "snapshots", "targets", "tokenizer", "tokens")
_NAME_DIGITS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """What a dataset was begun with.

    Attributes:
        identity: The settings that decide its bytes.
        environment: The numeric environment, which moves only their low bits; empty where it is not known.
    """

    identity: Identity
    environment: dict[str, Any]

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Configuration":
        """Parses a configuration.

        Raises:
            InvalidValueError: It is not one.
            UnknownFormatVersionError: Another version wrote it.
        """
        require_version(value, "dataset_version", DATASET_VERSION)
        environment = convert(value.get("environment"), dict[str, Any], at="environment")
        return cls(identity=Identity.from_json(value.get("identity")), environment=environment)


def configuration_url(out: str) -> str:
    return storage.inside(out, CONFIGURATION_NAME)


def shard_path(kind: str, split: str, name: str) -> str:
    """A shard's path, relative to the dataset's directory."""
    return f"{kind}/{split}/{name}.parquet"


def record_path(kind: str, split: str, name: str) -> str:
    """The path of the record next to a shard, relative to the dataset's directory."""
    return f"{kind}/{split}/{name}.json"


def read_rejected(out: str) -> Iterator[tuple[str, bytes]]:
    """Each file of rejected documents: its path, relative to the dataset's directory, and its contents.

    Raises:
        CorruptShardError: A file is larger than any that a job writes.
    """
    for file in storage.list_members(out, "rejected"):
        data = storage.read_bytes(file.url, max_bytes=_MAX_REJECTED_BYTES)
        if len(data) > _MAX_REJECTED_BYTES:
            raise CorruptShardError(
                f"{storage.redact(file.url)}: {file.size_bytes:,} bytes, a file of rejected documents has at most "
                f"{_MAX_REJECTED_BYTES:,}; restore or remove it"
            )
        yield f"rejected/{storage.file_name(file.url)}", data


def rejected_path(name: str, data: bytes) -> str:
    """The path of a file of rejected documents, relative to the dataset's directory; its name says its digest."""
    return f"rejected/{name}.{digest(data)[-_NAME_DIGITS:]}.jsonl"


def named_digest(path: str) -> str | None:
    """The last digits of a file's digest, where its name says them before its suffix: NAME.DIGITS.SUFFIX."""
    match = re.search(rf"\.([0-9a-f]{{{_NAME_DIGITS}}})\.[a-z]+\Z", path)
    return match[1] if match else None


def read_configuration(out: str) -> Configuration | None:
    """The configuration of a dataset; None for an empty directory, or none.

    Raises:
        ForeignOutputError: The directory holds files, but not a dataset.
        UnknownFormatVersionError: A later version began it.
    """
    try:
        return read_sealed(
            configuration_url(out),
            Configuration.from_json,
            version_key="dataset_version",
            what="the configuration of a dataset",
            advice="restore the file, or choose another directory",
            error=ForeignOutputError,
        )
    except FileNotFoundError:
        return _require_empty(out)


def _require_empty(out: str) -> None:
    files = storage.list_files(out)
    if files:
        raise ForeignOutputError(
            f"{storage.redact(out)}: holds {len(files)} files but no {CONFIGURATION_NAME}, so it is not a dataset "
            f"(first file: {storage.redact(files[0].url)}); choose another output directory"
        )


def write_configuration(out: str, *, identity: Identity, environment: dict[str, Any]) -> bool:
    """Begins a dataset; False if another process began it first."""
    value = {"dataset_version": DATASET_VERSION, "identity": identity.to_json(), "environment": environment}
    return create_sealed(configuration_url(out), value)
