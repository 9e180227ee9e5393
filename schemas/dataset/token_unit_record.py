"""The record of a token unit, written last: a unit with a record is finished."""

from dataclasses import asdict, dataclass
from typing import Any

from logitcask.schemas import storage
from logitcask.schemas.checked_json import Count, Digest, FileName, convert, require_version
from logitcask.schemas.format.metadata import Split
from logitcask.schemas.seals import read_sealed

# Since 2, records have a seal (`schemas.seals`).
TOKEN_UNIT_RECORD_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenShard:
    """A token shard, as its unit's record describes it.

    Attributes:
        name, split: Which shard.
        num_windows, num_positions, num_documents: Its contents; a document counts where it begins.
        footer_digest: Digest of its Parquet footer.
    """

    name: FileName
    split: Split
    num_windows: Count
    num_positions: Count
    num_documents: Count
    footer_digest: Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceContent:
    """What a unit read of one file.

    Attributes:
        name: The file's name.
        first, end: The range of its stored bytes.
        digest: Of that range (`pipeline.corpus.range_digest`).
    """

    name: str
    first: Count
    end: Count
    digest: Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenUnitRecord:
    """What a token unit read and produced.

    Attributes:
        name: The unit's name.
        num_documents: Documents found: those in its shards and the rejected ones.
        num_split: How many more they are than the corpus has, because each answer of a chat is a document.
        rejected: Reason to number of documents.
        shards: Its token shards.
        slices: What it read, in order; empty in records of earlier releases.
        num_known: Further documents that were left out, because the dataset had them already.
    """

    name: FileName
    num_documents: Count
    rejected: dict[str, Count]
    shards: tuple[TokenShard, ...]
    slices: tuple[SliceContent, ...] = ()
    num_known: Count = 0
    num_split: Count = 0

    @property
    def num_positions(self) -> int:
        return sum(shard.num_positions for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        fields = asdict(self)
        if not self.num_split:
            # The first records had no such field: equal units must keep equal bytes.
            del fields["num_split"]
        return {"tokenized_unit_version": TOKEN_UNIT_RECORD_VERSION, **fields}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TokenUnitRecord":
        """Parses a record.

        Raises:
            InvalidValueError: It is not one.
            UnknownFormatVersionError: Another version wrote it.
        """
        require_version(value, "tokenized_unit_version", TOKEN_UNIT_RECORD_VERSION)
        return convert(value, cls)


def token_unit_record_path(name: str) -> str:
    """Path of a unit's record, relative to the dataset's directory."""
    return f"tokens/units/{name}.json"


def read_token_unit_record(out: str, name: str) -> TokenUnitRecord:
    """The record of a finished token unit.

    Raises:
        FileNotFoundError: The unit is not finished.
        CorruptShardError: The file is not such a record.
    """
    return read_token_unit(storage.inside(out, token_unit_record_path(name)))


def read_token_unit(url: str) -> TokenUnitRecord:
    """As `read_token_unit_record`, by the URL of the record."""
    return read_sealed(
        url,
        TokenUnitRecord.from_json,
        version_key="tokenized_unit_version",
        what="the record of a token unit",
        advice="restore it, or remove it and run again",
    )
