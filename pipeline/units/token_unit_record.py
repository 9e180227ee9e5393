"""The record of a token unit: made last, so that the unit is finished where it stands."""

from dataclasses import asdict, dataclass
from typing import Any

from logitcask.pipeline.units.units import TokenShard
from logitcask.schemas import storage
from logitcask.schemas.errors import CorruptShardError

TOKENIZED_UNIT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedUnit:
    """What a token unit produced.

    Attributes:
        name: The unit's.
        num_documents: Documents found: those in its shards and those rejected.
        rejected: Reason to number of documents.
        shards: Its token shards.
    """

    name: str
    num_documents: int
    rejected: dict[str, int]
    shards: tuple[TokenShard, ...]

    @property
    def num_positions(self) -> int:
        return sum(shard.num_positions for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        return {"tokenized_unit_version": TOKENIZED_UNIT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TokenizedUnit":
        """Raises KeyError or TypeError if `value` is no such record."""
        fields = {key: value[key] for key in ("name", "num_documents", "rejected")}
        return cls(**fields, shards=tuple(TokenShard(**shard) for shard in value["shards"]))


def unit_record_url(out: str, name: str) -> str:
    """Where a token unit's record stands."""
    return storage.join(out, "tokens", "units", f"{name}.json")


def read_tokenized_unit(out: str, name: str) -> TokenizedUnit:
    """The record of a finished token unit.

    Raises:
        FileNotFoundError: It is not finished.
        CorruptShardError: What stands there is no such record.
    """
    url = unit_record_url(out, name)
    try:
        return TokenizedUnit.from_json(storage.read_json(url))
    except (KeyError, TypeError, ValueError) as e:
        raise CorruptShardError(f"{storage.redact(url)}: not a unit's record ({e}); remove it and run again") from e
