"""What a family of target columns must do. `schemas.format.columns.registry` lists all families.

Shapes: T rows, V ids in the vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from logitcask.schemas.errors import VocabularyError
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.ragged import Lists
from logitcask.schemas.format.targets import TargetRows, Targets, Windows


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredColumns:
    """Columns of T rows as a reader found them.

    Attributes:
        single: The columns with one value per row.
        lists: The list columns by name. The ids of heads may be absent; heads then have no ids.
        ids_by_rank: The id of each rank, int32 [V]; None unless `lists` has gaps (`schemas.format.id_gaps`).
    """

    single: pa.Table
    lists: Mapping[str, Lists]
    ids_by_rank: np.ndarray | None = None


EncodedColumns = Iterator[tuple[pa.Field, pa.Array]]
BrokenRules = Iterator[tuple[str, np.ndarray]]
"""Rules of FORMAT.md, each with the rows that break it."""


class TargetColumns(ABC):
    """A family of columns: one column, or several that are written and read together."""

    is_optional: ClassVar[bool]
    """Whether a reader may skip the columns."""

    @abstractmethod
    def owns(self, column: str) -> bool:
        """Whether a column of this name belongs to the family."""

    @abstractmethod
    def field(self, column: str) -> pa.Field:
        """Name, type and nullability of one of the columns."""

    def required(self, metadata: ShardMetadata) -> list[str]:
        """Names of the columns that a target shard with this metadata must have."""
        return []

    @abstractmethod
    def encode(self, targets: Targets, metadata: ShardMetadata, frequent_ids: np.ndarray | None) -> EncodedColumns:
        """The quantized columns of T rows, in their order in the file.

        Args:
            targets: T rows.
            metadata: What the shard is.
            frequent_ids: The ids with the lowest ranks, int32; None in the layout "plain".

        Raises:
            VocabularyError: An id is negative or not below the vocabulary's size.
        """

    @abstractmethod
    def decode(self, stored: StoredColumns) -> dict[str, Any]:
        """The fields of `StoredTargets` that these columns hold.

        Raises:
            ValueError: The columns contradict each other.
        """

    def broken_rules(self, windows: Windows, targets: TargetRows, metadata: ShardMetadata) -> BrokenRules:
        """The rules for these columns.

        Args:
            windows: T rows.
            targets: Their targets, stored or not yet stored.
            metadata: What the shard is.
        """
        yield from ()


def check_ids(name: str, ids: np.ndarray, vocab_size: int) -> None:
    """Raises VocabularyError if an id is outside the vocabulary."""
    outside = np.flatnonzero(outside_vocabulary(ids, vocab_size))
    if len(outside):
        raise VocabularyError(
            f"{name} id {ids[outside[0]]} at entry {outside[0]} is outside the vocabulary of {vocab_size} ids "
            f"({len(outside)} such ids); the tokenizer and the teacher do not match"
        )


def outside_vocabulary(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    """Whether an id is negative or not below the vocabulary's size, bool, same shape."""
    return (ids < 0) | (ids >= vocab_size)


def list_type(value_type: pa.DataType) -> pa.DataType:
    """A list whose elements are not null."""
    return pa.list_(pa.field("element", value_type, nullable=False))


def list_column(values: np.ndarray, offsets: np.ndarray, type_: pa.DataType) -> pa.Array:
    """A list column of T rows from flat values and offsets [T + 1]."""
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values), type=type_)
