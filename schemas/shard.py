"""One shard: a Parquet file whose rows are positions (format version 1; FORMAT.md is the specification).

A token shard has the columns `window, document, token, kind`; a target shard has these and the teacher's targets.
Plain Arrow types, so that DuckDB, polars, pandas, Spark and `datasets` read it with no code of ours. What is not a
row lives in the footer's key-value metadata: the format version, what the shard is, its parts and its windows.
"""

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas import quantizer
from schemas.errors import VocabularyError
from schemas.fingerprints import canonical_json, digest
from schemas.scheme import Scheme
from schemas.targets import Targets, Windows

FORMAT_VERSION = 1
# Raised whenever the same teacher, tokens and scheme would give other targets.
ALGORITHM_VERSION = 1

VERSION_KEY = b"logitcask.format_version"
METADATA_KEY = b"logitcask.metadata"
PARTS_KEY = b"logitcask.parts"
WINDOWS_KEY = b"logitcask.windows"

# Row groups are whole windows, closed once they reach this many positions: small enough that eight windows of 1,024
# are one read, large enough to compress (groups of one window cost 8 bytes a token more).
ROW_GROUP_POSITIONS = 8192

Split = Literal["train", "held-out"]
SPLITS: tuple[Split, ...] = ("train", "held-out")

TOKEN_FIELDS = [
    pa.field("window", pa.int32(), nullable=False),
    pa.field("document", pa.int32(), nullable=False),
    pa.field("token", pa.int32(), nullable=False),
    pa.field("kind", pa.uint8(), nullable=False),
]
TARGET_FIELDS = [
    pa.field("ids", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),
    pa.field("q", pa.list_(pa.field("element", pa.uint8(), nullable=False)), nullable=False),
    pa.field("tail", pa.uint16()),
    pa.field("next_q", pa.uint16()),
]
ENTROPY_FIELD = pa.field("entropy", pa.uint16())
_SAMPLE_TYPE = pa.list_(pa.field("element", pa.int32(), nullable=False))


def sample_column(replica: int) -> str:
    """Name of the column with a replica of the tail sample, from 0."""
    return f"tail_sample@{replica}" if replica else "tail_sample"


def tempered_tail_column(temperature: float) -> str:
    """Name of the column with the tail at a temperature other than 1."""
    return f"tail@{temperature:g}"


# Columns of few distinct values go through a dictionary. Ids do not: zstd finds repeated four-byte ids by itself.
_DICTIONARY_COLUMNS = ["window", "document", "kind", "q.list.element"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerInfo:
    """Which tokenizer made the ids.

    Attributes:
        name: For people.
        fingerprint: Covers all that changes which ids a text becomes.
        vocabulary_fingerprint: Covers what ids mean (`fingerprints.vocabulary_fingerprint`).
        vocab_size: Largest id + 1.
        bos_id, eos_id: None where the tokenizer defines none.
        chat_template: The template's text, if there is one.
    """

    name: str
    fingerprint: str
    vocabulary_fingerprint: str
    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    chat_template: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherInfo:
    """Which model gave the distributions.

    Attributes:
        name: For people: a hub id or the last component of a path.
        fingerprint: Covers weights and configuration.
        vocab_size: Width of the distribution; stored ids are below it.
        dtype: Of the forward pass. The projection accumulates in float32 whatever it is.
        architecture: Class name in `transformers`.
        num_parameters: Of the whole model.
        licence: As its files state it, None where they do not.
        final_logit_softcap: The cap c of c·tanh(z/c) before the softmax, None where there is none.
    """

    name: str
    fingerprint: str
    vocab_size: int
    dtype: str
    architecture: str
    num_parameters: int
    licence: str | None = None
    final_logit_softcap: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardMetadata:
    """What a shard is: all that changes its meaning, and no time, host or package version.

    Attributes:
        kind: "tokens" or "targets".
        split: "train" or "held-out".
        window_tokens: The most positions a window may have.
        tokenizer: Where the ids come from.
        teacher: Where the targets come from; None for a token shard.
        scheme: How heads were chosen; None for a token shard.
        has_entropy: Whether there is a column `entropy`.
        corpus_licence: Terms of the text, as the user stated them.
    """

    kind: Literal["tokens", "targets"]
    split: Split
    window_tokens: int
    tokenizer: TokenizerInfo
    teacher: TeacherInfo | None = None
    scheme: Scheme | None = None
    has_entropy: bool = False
    corpus_licence: str | None = None

    @property
    def vocab_size(self) -> int:
        """Ids in the shard are below this."""
        return self.teacher.vocab_size if self.teacher else self.tokenizer.vocab_size

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "scheme": self.scheme.to_json() if self.scheme else None,
            "quantizer": quantizer.NAME if self.kind == "targets" else None,
            "algorithm_version": ALGORITHM_VERSION,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ShardMetadata":
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        known["tokenizer"] = TokenizerInfo(**known["tokenizer"])
        known["teacher"] = TeacherInfo(**known["teacher"]) if known.get("teacher") else None
        known["scheme"] = Scheme.from_json(known["scheme"]) if known.get("scheme") else None
        return cls(**known)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedShard:
    """A whole Parquet file in memory.

    Attributes:
        data: The file.
        digest: Of the whole file.
        footer_digest: Of its footer, which page checksums do not cover.
        num_windows, num_positions: What it holds.
        column_bytes: Compressed bytes of each column.
    """

    data: bytes
    digest: str
    footer_digest: str
    num_windows: int
    num_positions: int
    column_bytes: dict[str, int]


def encode_shard(windows: Windows, targets: Targets | None, metadata: ShardMetadata) -> EncodedShard:
    """Encodes windows (and their targets) as one Parquet file. Equal input gives equal bytes.

    Raises:
        VocabularyError: A token or head id is negative or not below the vocabulary's size.
    """
    assert (targets is None) == (metadata.kind == "tokens"), "targets belong into target shards, all of them"
    _check_ids("token", windows.token, metadata.vocab_size)
    columns: list[pa.Array] = _token_columns(windows)
    fields = list(TOKEN_FIELDS)
    if targets is not None:
        assert targets.num_positions == windows.num_positions, "a target for every row"
        _check_ids("head", targets.head_ids, metadata.vocab_size)
        columns += _target_columns(targets)
        fields += TARGET_FIELDS
        for field, column in _optional_columns(targets, metadata):
            fields.append(field)
            columns.append(column)
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    data = _write_parquet(table, windows, _footer_metadata(windows, metadata))
    return EncodedShard(
        data=data,
        digest=digest(data),
        footer_digest=digest(footer_of(data)),
        num_windows=windows.num_windows,
        num_positions=windows.num_positions,
        column_bytes=column_bytes(data),
    )


def column_bytes(data: bytes) -> dict[str, int]:
    """Compressed bytes of each column of a whole Parquet file."""
    metadata = pq.read_metadata(pa.BufferReader(data))
    sizes: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            name = column.path_in_schema.split(".")[0]
            sizes[name] = sizes.get(name, 0) + column.total_compressed_size
    return sizes


def footer_of(tail: bytes) -> bytes:
    """The footer of a Parquet file (metadata, its length, magic), from bytes that end where the file ends.

    Raises:
        ValueError: `tail` does not end like a Parquet file, or is shorter than the footer.
    """
    if len(tail) < 12 or tail[-4:] != b"PAR1":
        raise ValueError("no Parquet magic at the end")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail):
        raise ValueError(f"the footer claims {length} bytes")
    return tail[-length:]


def _check_ids(name: str, ids: np.ndarray, vocab_size: int) -> None:
    outside = np.flatnonzero((ids < 0) | (ids >= vocab_size))
    if len(outside):
        raise VocabularyError(
            f"{name} id {ids[outside[0]]} at entry {outside[0]} lies outside the vocabulary of {vocab_size} ids "
            f"({len(outside)} such ids); the tokenizer and the teacher do not belong together"
        )


def _token_columns(windows: Windows) -> list[pa.Array]:
    return [pa.array(column) for column in (windows.window_index(), windows.part, windows.token, windows.kind)]


def _target_columns(targets: Targets) -> list[pa.Array]:
    offsets = pa.array(targets.head_offsets.astype(np.int32))
    ids_field, q_field = TARGET_FIELDS[0], TARGET_FIELDS[1]
    return [
        pa.ListArray.from_arrays(offsets, pa.array(targets.head_ids), type=ids_field.type),
        pa.ListArray.from_arrays(offsets, pa.array(quantizer.quantize_head(targets.head_log_probs)), type=q_field.type),
        _tail_column(targets.log_tail),
        _nullable_nats(-targets.log_next),
    ]


def _optional_columns(targets: Targets, metadata: ShardMetadata) -> Iterator[tuple[pa.Field, pa.Array]]:
    if metadata.has_entropy:
        assert targets.entropy is not None, "the scorer gave no entropy"
        yield ENTROPY_FIELD, _nullable_nats(targets.entropy)
    for replica, sample in enumerate(targets.tail_samples):
        _check_ids(sample_column(replica), sample.ids, metadata.vocab_size)
        offsets = pa.array(sample.offsets.astype(np.int32))
        column = pa.ListArray.from_arrays(offsets, pa.array(sample.ids), type=_SAMPLE_TYPE)
        yield pa.field(sample_column(replica), _SAMPLE_TYPE, nullable=False), column
    for temperature, log_tail in sorted(targets.tempered_log_tails.items()):
        yield pa.field(tempered_tail_column(temperature), pa.uint16()), _tail_column(log_tail)


def _tail_column(log_tail: np.ndarray) -> pa.Array:
    steps = quantizer.quantize_tail(np.nan_to_num(log_tail, nan=0.0, neginf=-np.inf))
    return pa.array(steps, mask=np.isnan(log_tail))


def _nullable_nats(values: np.ndarray) -> pa.Array:
    return pa.array(quantizer.quantize_nats(values), mask=np.isnan(values))


def _footer_metadata(windows: Windows, metadata: ShardMetadata) -> dict[bytes, str]:
    parts = windows.parts
    return {
        VERSION_KEY: str(FORMAT_VERSION),
        METADATA_KEY: canonical_json(metadata.to_json()),
        PARTS_KEY: canonical_json(
            {
                "id": [part.id for part in parts],
                "source": [part.source for part in parts],
                "offset": [part.offset for part in parts],
            }
        ),
        WINDOWS_KEY: canonical_json(
            {"lengths": np.diff(windows.window_offsets).tolist(), "hashes": windows.content_hashes()}
        ),
    }


def _write_parquet(table: pa.Table, windows: Windows, footer_metadata: dict[bytes, str]) -> bytes:
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        compression_level=9,
        use_dictionary=_DICTIONARY_COLUMNS,  # pyright: ignore[reportArgumentType]
        write_statistics=["window", "document"],  # pyright: ignore[reportArgumentType]
        write_page_checksum=True,
        store_schema=False,
        # One page a column and row group: a block of windows is read whole.
        data_page_size=64 << 20,
        max_rows_per_page=1 << 24,
    ) as writer:
        for start, stop in row_group_bounds(windows.window_offsets):
            writer.write_table(table.slice(start, stop - start), row_group_size=max(1, stop - start))
        for key, value in footer_metadata.items():
            # One at a time: within one call the order would be that of a hash table.
            writer.add_key_value_metadata({key.decode(): value})
    return sink.getvalue()


def row_group_bounds(window_offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Rows (start, stop) of each row group: whole windows, at least `ROW_GROUP_POSITIONS` but for the last."""
    start = 0
    for offset in window_offsets[1:].tolist():
        if offset - start >= ROW_GROUP_POSITIONS:
            yield start, offset
            start = offset
    if start < window_offsets[-1]:
        yield start, int(window_offsets[-1])
