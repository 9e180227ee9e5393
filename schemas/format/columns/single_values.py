"""Columns with one quantized value per row, null where there is none: `tail`, `tail@T`, `next_q`, `entropy`."""

import re
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from logitcask.schemas.format import quantizer
from logitcask.schemas.format.columns.family import BrokenRules, EncodedColumns, StoredColumns, TargetColumns
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.targets import TargetRows, Targets, Windows

ENTROPY = "entropy"
_TAIL_AT = re.compile(r"tail@(\d+(?:\.\d+)?)")


class _OneColumn(TargetColumns):
    """A family of one column, which is required unless it is optional."""

    name: ClassVar[str]

    def owns(self, column: str) -> bool:
        return column == self.name

    def field(self, column: str) -> pa.Field:
        return _field(column)

    def required(self, metadata: ShardMetadata) -> list[str]:
        return [] if self.is_optional else [self.name]


class TailColumn(_OneColumn):
    """The tail: −log of all mass outside the head."""

    name, is_optional = "tail", False

    def encode(self, targets: Targets, metadata: ShardMetadata, frequent_ids: np.ndarray | None) -> EncodedColumns:
        yield _field(self.name), _encode_log_tail(targets.log_tail)

    def decode(self, stored: StoredColumns) -> dict[str, Any]:
        return {"log_tail": _decode_log_tail(stored.single[self.name])}

    def broken_rules(self, windows: Windows, targets: TargetRows, metadata: ShardMetadata) -> BrokenRules:
        rows = np.flatnonzero(targets.has_target() != windows.has_target())
        yield "a row of this kind must (not) have a target", rows


class NextTokenColumn(_OneColumn):
    """−log p of the actual next token."""

    name, is_optional = "next_q", False

    def encode(self, targets: Targets, metadata: ShardMetadata, frequent_ids: np.ndarray | None) -> EncodedColumns:
        yield _field(self.name), _encode_nats(-targets.log_next)

    def decode(self, stored: StoredColumns) -> dict[str, Any]:
        return {"log_next": -_decode_nats(stored.single[self.name])}

    def broken_rules(self, windows: Windows, targets: TargetRows, metadata: ShardMetadata) -> BrokenRules:
        rows = np.flatnonzero(targets.has_label() != windows.has_label())
        yield "next_q is present where there is no label, or absent where there is one", rows


class EntropyColumn(_OneColumn):
    """The entropy of the full distribution."""

    name, is_optional = ENTROPY, True

    def encode(self, targets: Targets, metadata: ShardMetadata, frequent_ids: np.ndarray | None) -> EncodedColumns:
        if metadata.has_entropy:
            assert targets.entropy is not None, "the scorer gave no entropy"
            yield _field(ENTROPY), _encode_nats(targets.entropy)

    def decode(self, stored: StoredColumns) -> dict[str, Any]:
        return {"entropy": _decode_nats(stored.single[ENTROPY]) if ENTROPY in stored.single.column_names else None}

    def broken_rules(self, windows: Windows, targets: TargetRows, metadata: ShardMetadata) -> BrokenRules:
        if (targets.entropy is not None) != metadata.has_entropy:
            stated, found = ("an", "none") if metadata.has_entropy else ("no", "one")
            yield f"the shard says that it has {stated} entropy, but it has {found}", np.zeros(1, np.int64)
        elif targets.entropy is not None:
            rows = np.flatnonzero(np.isnan(targets.entropy) == targets.has_target())
            yield "entropy is present where there is no target, or absent where there is one", rows


class TemperedTailColumns(TargetColumns):
    """The tail at temperatures other than 1, one column for each temperature, in ascending order."""

    is_optional = True

    def owns(self, column: str) -> bool:
        return _TAIL_AT.fullmatch(column) is not None

    def field(self, column: str) -> pa.Field:
        return _field(column)

    def encode(self, targets: Targets, metadata: ShardMetadata, frequent_ids: np.ndarray | None) -> EncodedColumns:
        for temperature, log_tail in sorted(targets.tempered_log_tails.items()):
            yield _field(_tail_at(temperature)), _encode_log_tail(log_tail)

    def decode(self, stored: StoredColumns) -> dict[str, Any]:
        columns = {name: match[1] for name in stored.single.column_names if (match := _TAIL_AT.fullmatch(name))}
        tails = {float(temperature): _decode_log_tail(stored.single[name]) for name, temperature in columns.items()}
        return {"tempered_log_tails": tails}

    def broken_rules(self, windows: Windows, targets: TargetRows, metadata: ShardMetadata) -> BrokenRules:
        for temperature, log_tail in targets.tempered_log_tails.items():
            rows = np.flatnonzero(np.isnan(log_tail) == targets.has_target())
            yield f"{_tail_at(temperature)} is present where there is no target, or absent where there is one", rows


def stored_temperatures(columns: Iterable[str]) -> list[float]:
    """The temperatures of those columns that hold tails at other temperatures than 1."""
    return [float(match[1]) for name in columns if (match := _TAIL_AT.fullmatch(name))]


def _tail_at(temperature: float) -> str:
    return f"tail@{temperature:g}"


def _field(name: str) -> pa.Field:
    return pa.field(name, pa.uint16())


def _encode_log_tail(log_tail: np.ndarray) -> pa.Array:
    steps = quantizer.quantize_tail(np.nan_to_num(log_tail, nan=0.0, neginf=-np.inf))
    return pa.array(steps, mask=np.isnan(log_tail))


def _decode_log_tail(column: pa.ChunkedArray) -> np.ndarray:
    return quantizer.dequantize_tail(_steps(column))


def _encode_nats(values: np.ndarray) -> pa.Array:
    return pa.array(quantizer.quantize_nats(values), mask=np.isnan(values))


def _decode_nats(column: pa.ChunkedArray) -> np.ndarray:
    return quantizer.dequantize_nats(_steps(column))


def _steps(column: pa.ChunkedArray) -> np.ndarray:
    """Stored steps, exact in float32, NaN where null, [T]."""
    return column.combine_chunks().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
