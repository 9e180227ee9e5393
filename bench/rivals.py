"""How other projects store the same targets, reimplemented from their publications.

Each encoding turns targets into bytes and back. If a format stores no tail, a student can only use 1 − Σ head; its
decoded tail is this value here, at least 2⁻²⁴.
"""

import json
import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from logitcask.schemas.format.targets import Targets

SMALLEST_TAIL = 2.0**-24


class Decoded(NamedTuple):
    """Head entries of T rows, flat, in any order within a row; `log_tail` is None if the format stores no tail."""

    ids: np.ndarray
    log_probs: np.ndarray
    offsets: np.ndarray
    log_tail: np.ndarray | None


class Encoding(Protocol):
    """Targets of T rows and their tokens → bytes → targets."""

    def encode(self, token: np.ndarray, targets: Targets) -> bytes: ...

    def decode(self, data: bytes) -> Decoded: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedJson:
    """A list of maps from id to log-probability, rank and text, as inference servers return them for prompt tokens."""

    pieces: dict[int, str]
    zstd_level: int | None = None

    def encode(self, token: np.ndarray, targets: Targets) -> bytes:
        data = json.dumps([self._row(targets, row) for row in range(targets.num_positions)]).encode()
        return data if self.zstd_level is None else zstandard.compress(data, self.zstd_level)

    def _row(self, targets: Targets, row: int) -> dict[str, dict]:
        entries = slice(targets.head_offsets[row], targets.head_offsets[row + 1])
        ids, log_probs = targets.head_ids[entries], targets.head_log_probs[entries]
        return {
            str(ids[entry]): {
                "logprob": float(log_probs[entry]),
                "rank": rank,
                "decoded_token": self.pieces[int(ids[entry])],
            }
            for rank, entry in enumerate(np.argsort(-log_probs, kind="stable"), start=1)
        }

    def decode(self, data: bytes) -> Decoded:
        rows = json.loads(data if self.zstd_level is None else zstandard.decompress(data))
        return Decoded(
            ids=np.array([int(token) for row in rows for token in row], np.int32),
            log_probs=np.array([entry["logprob"] for row in rows for entry in row.values()], np.float32),
            offsets=np.cumsum([0, *map(len, rows)]),
            log_tail=None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainParquet:
    """Lists of int32 ids and floating-point log-probabilities, tail and token, with the defaults of pyarrow."""

    dtype: type

    def encode(self, token: np.ndarray, targets: Targets) -> bytes:
        offsets = pa.array(targets.head_offsets.astype(np.int32))
        table = pa.table(
            {
                "token": token,
                "ids": pa.ListArray.from_arrays(offsets, targets.head_ids),
                "log_probs": pa.ListArray.from_arrays(offsets, targets.head_log_probs.astype(self.dtype)),
                "log_tail": targets.log_tail.astype(self.dtype),
            }
        )
        return _parquet(table)

    def decode(self, data: bytes) -> Decoded:
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
        ids, log_probs = table["ids"].combine_chunks(), table["log_probs"].combine_chunks()
        return Decoded(
            ids=ids.flatten().to_numpy(),
            log_probs=log_probs.flatten().to_numpy().astype(np.float32),
            offsets=ids.offsets.to_numpy(),
            log_tail=table["log_tail"].to_numpy().astype(np.float32),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedFp16:
    """Offline distillation in Megatron-LM: k ids of 17 bits and k fp16 log-probabilities per row, no tail."""

    k: int

    def encode(self, token: np.ndarray, targets: Targets) -> bytes:
        ids = targets.head_ids.reshape(-1, self.k)
        high = np.packbits((ids >> 16).astype(np.uint8), axis=1)
        low = (ids & 0xFFFF).astype("<u2").view(np.uint8)
        values = targets.head_log_probs.astype("<f2").reshape(-1, self.k).view(np.uint8)
        return np.concatenate([low, high, values, token.astype("<i4")[:, None].view(np.uint8)], axis=1).tobytes()

    def decode(self, data: bytes) -> Decoded:
        widths = np.array([2 * self.k, -(-self.k // 8), 2 * self.k, 4])
        rows = np.frombuffer(data, np.uint8).reshape(-1, widths.sum())
        low, high, values, _ = (np.ascontiguousarray(part) for part in np.split(rows, np.cumsum(widths[:-1]), axis=1))
        top = np.unpackbits(high, axis=1, count=self.k).astype(np.int32)
        return Decoded(
            ids=(low.view("<u2") | top << 16).ravel().astype(np.int32),
            log_probs=values.view("<f2").ravel().astype(np.float32),
            offsets=np.arange(0, len(rows) * self.k + 1, self.k),
            log_tail=None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Polynomial:
    """The logprob compressor of DistillKit: bit-packed ids by descending probability, a curve after the exact values.

    Its README gives the presets, but not the abscissa of the curve. Here it is rank/(k − exact_k) in (0, 1], fitted in
    float64; this gives smaller errors than powers of the rank.
    """

    k: int
    exact_k: int
    terms: tuple[int | str, ...]
    vocab_size: int

    @property
    def _id_bits(self) -> int:
        return math.ceil(math.log2(self.vocab_size))

    def _basis(self) -> np.ndarray:
        x = np.arange(1, self.k - self.exact_k + 1) / (self.k - self.exact_k)
        return np.stack([np.sqrt(x) if term == "sqrt" else x ** int(term) for term in self.terms])

    def encode(self, token: np.ndarray, targets: Targets) -> bytes:
        ids, log_probs = targets.head_ids.reshape(-1, self.k), targets.head_log_probs.reshape(-1, self.k)
        order = np.argsort(-log_probs, axis=1, kind="stable")
        ids, log_probs = np.take_along_axis(ids, order, 1), np.take_along_axis(log_probs, order, 1)
        exact = _to_bfloat16(log_probs[:, : self.exact_k]).view(np.uint8)
        curve = (log_probs[:, self.exact_k :].astype(np.float64) @ np.linalg.pinv(self._basis())).astype("<f4")
        table = pa.table(
            {
                "token": token,
                "ids": _byte_lists(_pack_bits(ids, self._id_bits)),
                "values": _byte_lists(np.concatenate([exact, curve.view(np.uint8)], axis=1)),
            }
        )
        return _parquet(table)

    def decode(self, data: bytes) -> Decoded:
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
        num_rows = table.num_rows
        packed = table["ids"].combine_chunks().flatten().to_numpy().reshape(num_rows, -1)
        values = table["values"].combine_chunks().flatten().to_numpy().reshape(num_rows, -1)
        exact, curve = np.split(values, [2 * self.exact_k], axis=1)
        exact_log_probs = _from_bfloat16(np.ascontiguousarray(exact).view("<u2"))
        rest = np.ascontiguousarray(curve).view("<f4") @ self._basis().astype(np.float32)
        return Decoded(
            ids=_unpack_bits(packed, self.k, self._id_bits).ravel(),
            log_probs=np.concatenate([exact_log_probs, rest], axis=1).ravel(),
            offsets=np.arange(0, num_rows * self.k + 1, self.k),
            log_tail=None,
        )


def distillkit_presets(vocab_size: int) -> dict[str, Polynomial]:
    """The two configurations that the README of DistillKit recommends."""
    recommended = Polynomial(k=128, exact_k=16, terms=(0, 1, 2, 3, 4, "sqrt"), vocab_size=vocab_size)
    budget = Polynomial(k=50, exact_k=1, terms=(0, 1, "sqrt"), vocab_size=vocab_size)
    return {"recommended": recommended, "budget": budget}


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedDraws:
    """RS-KD: entries of 24 bits, 17 for an id and 7 for its count, and one byte per row for the number of entries."""

    def encode_draws(self, ids: np.ndarray, counts: np.ndarray, offsets: np.ndarray) -> bytes:
        words = (ids.astype(np.uint32) << 7) | counts.astype(np.uint32)
        entries = words.astype("<u4")[:, None].view(np.uint8)[:, :3]
        return np.diff(offsets).astype(np.uint8).tobytes() + entries.tobytes()

    def decode_draws(self, data: bytes, num_rows: int, num_draws: int) -> Decoded:
        widths = np.frombuffer(data, np.uint8, num_rows)
        entries = np.frombuffer(data, np.uint8, offset=num_rows).reshape(-1, 3).astype(np.uint32)
        words = entries[:, 0] | entries[:, 1] << 8 | entries[:, 2] << 16
        log_probs = np.log((words & 127) / np.float32(num_draws))
        return Decoded((words >> 7).astype(np.int32), log_probs, np.cumsum(np.append(0, widths)), None)


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _byte_lists(rows: np.ndarray) -> pa.Array:
    offsets = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, np.ascontiguousarray(rows).ravel())


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper 16 bits of float32 values, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def _from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _pack_bits(values: np.ndarray, num_bits: int) -> np.ndarray:
    """[T, k] integers to [T, ⌈k·bits/8⌉] bytes."""
    bits = np.stack([(values >> bit & 1).astype(np.uint8) for bit in range(num_bits)], axis=2)
    return np.packbits(bits.reshape(len(values), -1), axis=1)


def _unpack_bits(packed: np.ndarray, k: int, num_bits: int) -> np.ndarray:
    bits = np.unpackbits(packed, axis=1, count=k * num_bits).reshape(len(packed), k, num_bits)
    values = np.zeros((len(packed), k), np.int32)
    for bit in range(num_bits):
        values |= bits[:, :, bit].astype(np.int32) << bit
    return values
