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

from schemas import compact_ids, quantizer
from schemas.errors import VocabularyError
from schemas.fingerprints import canonical_json, digest
from schemas.scheme import Layout, Scheme
from schemas.targets import Targets, Windows

FORMAT_VERSION = 1
# Raised whenever the same teacher, tokens and scheme would give other targets.
ALGORITHM_VERSION = 1

VERSION_KEY = b"logitcask.format_version"
METADATA_KEY = b"logitcask.metadata"
PARTS_KEY = b"logitcask.parts"
WINDOWS_KEY = b"logitcask.windows"
FREQUENT_IDS_KEY = b"logitcask.frequent_ids"

# Row groups are whole windows, closed once they reach this many positions: small enough that eight windows of 1,024
# are one read, large enough to compress (groups of one window cost 8 bytes a token more).
ROW_GROUP_POSITIONS = 8192
# A multiple of eight windows closes one earlier: windows are not quite full, and nine would straddle two blocks.
BLOCK_WINDOWS, BLOCK_POSITIONS = 8, 6144

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
GAPS_FIELD = pa.field("id_gaps", TARGET_FIELDS[0].type, nullable=False)
# The ids of heads, in one layout or the other.
ID_COLUMNS = (TARGET_FIELDS[0].name, GAPS_FIELD.name)
ENTROPY_FIELD = pa.field("entropy", pa.uint16())
_SAMPLE_TYPE = pa.list_(pa.field("element", pa.int32(), nullable=False))


def target_fields(layout: Layout) -> list[pa.Field]:
    """The columns that every target shard of a layout has."""
    return TARGET_FIELDS if layout == "plain" else [GAPS_FIELD, *TARGET_FIELDS[1:]]


def sample_column(replica: int) -> str:
    """Name of the column with a replica of the tail sample, from 0."""
    return f"tail_sample@{replica}" if replica else "tail_sample"


def tempered_tail_column(temperature: float) -> str:
    """Name of the column with the tail at a temperature other than 1."""
    return f"tail@{temperature:g}"


_GAPS_LEAF = "id_gaps.list.element"
# Compression level by column. Ids take four fifths of all time to write: a level less costs 1 % of a shard, and a third
# less time. Nothing is to be found in quantised values, nor in the bytes of gaps, that level 3 does not find.
_LEVELS = {"ids.list.element": 6, "q.list.element": 3, _GAPS_LEAF: 3}
_LEVEL = 9
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
        layout: How head ids are stored.
    """

    kind: Literal["tokens", "targets"]
    split: Split
    window_tokens: int
    tokenizer: TokenizerInfo
    teacher: TeacherInfo | None = None
    scheme: Scheme | None = None
    has_entropy: bool = False
    corpus_licence: str | None = None
    layout: Layout = "plain"

    @property
    def vocab_size(self) -> int:
        """Ids in the shard are below this."""
        return self.teacher.vocab_size if self.teacher else self.tokenizer.vocab_size

    def to_json(self) -> dict[str, Any]:
        fields = asdict(self)
        if self.layout == "plain":
            # Shards had no other when they had no such field: equal shards keep equal bytes.
            del fields["layout"]
        return {
            **fields,
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
    table, frequent_ids = token_table(windows, metadata), None
    if targets is not None:
        assert targets.num_positions == windows.num_positions, "a target for every row"
        if metadata.layout == "compact":
            frequent_ids = compact_ids.frequent_ids(targets.head_ids)
        table = add_targets(table, targets, metadata, frequent_ids)
    return encode_table(table, windows, metadata, frequent_ids=frequent_ids)


def token_table(windows: Windows, metadata: ShardMetadata) -> pa.Table:
    """The columns of tokens.

    Raises:
        VocabularyError: A token is negative or not below the vocabulary's size.
    """
    _check_ids("token", windows.token, metadata.vocab_size)
    return pa.Table.from_arrays(_token_columns(windows), schema=pa.schema(TOKEN_FIELDS))


def add_targets(
    tokens: pa.Table, targets: Targets, metadata: ShardMetadata, frequent_ids: np.ndarray | None = None
) -> pa.Table:
    """The columns of tokens and of their targets, quantised.

    Raises:
        VocabularyError: A head id is negative or not below the vocabulary's size.
    """
    _check_ids("head", targets.head_ids, metadata.vocab_size)
    columns = _head_columns(targets, metadata.vocab_size, frequent_ids)
    columns += [_tail_column(targets.log_tail), _nullable_nats(-targets.log_next)]
    fields = [*TOKEN_FIELDS, *target_fields(metadata.layout)]
    for field, column in _optional_columns(targets, metadata):
        fields.append(field)
        columns.append(column)
    return pa.Table.from_arrays([*tokens.columns, *columns], schema=pa.schema(fields))


def encode_table(
    table: pa.Table, windows: Windows, metadata: ShardMetadata, *, frequent_ids: np.ndarray | None = None
) -> EncodedShard:
    """Encodes the columns of windows, quantised already, as one Parquet file.

    Args:
        table: The columns.
        windows: What stands in the columns of tokens.
        metadata: What the shard is.
        frequent_ids: What the gaps of the layout "compact" refer to.
    """
    assert (frequent_ids is None) == (metadata.layout == "plain"), "gaps mean nothing without the list of ids"
    sink = io.BytesIO()
    with open_writer(sink, table.schema) as writer:
        for start, stop in row_group_bounds(windows.window_offsets):
            write_row_group(writer, table.slice(start, stop - start))
        write_footer(writer, windows, metadata, frequent_ids)
    return describe_shard(sink.getvalue(), windows)


def describe_shard(data: bytes, windows: Windows) -> EncodedShard:
    """A whole file with what is recorded of it."""
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


def _head_columns(targets: Targets, vocab_size: int, frequent_ids: np.ndarray | None) -> list[pa.Array]:
    """Ids, or gaps where there is a list of frequent ids, and quantised log-probabilities."""
    ids, q = targets.head_ids, quantizer.quantize_head(targets.head_log_probs)
    if frequent_ids is not None:
        by_rank = compact_ids.ids_by_rank(frequent_ids, vocab_size)
        ids, q = compact_ids.to_gaps(ids, q, targets.head_offsets, by_rank)
    offsets = pa.array(targets.head_offsets.astype(np.int32))
    types = [field.type for field in TARGET_FIELDS[:2]]
    return [
        pa.ListArray.from_arrays(offsets, pa.array(values), type=type_)
        for values, type_ in zip((ids, q), types, strict=True)
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


def _footer_metadata(windows: Windows, metadata: ShardMetadata, frequent_ids: np.ndarray | None) -> dict[bytes, str]:
    parts = windows.parts
    pairs = {
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
    if frequent_ids is not None:
        pairs[FREQUENT_IDS_KEY] = canonical_json(frequent_ids.tolist())
    return pairs


def open_writer(sink: io.BytesIO, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer with every setting that decides a shard's bytes."""
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level={name: _LEVELS.get(name, _LEVEL) for name in _leaves(schema)},
        use_dictionary=_DICTIONARY_COLUMNS,  # pyright: ignore[reportArgumentType]
        use_byte_stream_split=[_GAPS_LEAF] if _GAPS_LEAF in _leaves(schema) else False,  # pyright: ignore[reportArgumentType]
        write_statistics=["window", "document"],  # pyright: ignore[reportArgumentType]
        write_page_checksum=True,
        store_schema=False,
        # One page a column and row group: a block of windows is read whole.
        data_page_size=64 << 20,
        max_rows_per_page=1 << 24,
    )


def write_row_group(writer: pq.ParquetWriter, rows: pa.Table) -> None:
    """Writes rows as one row group."""
    writer.write_table(rows, row_group_size=max(1, rows.num_rows))


def write_footer(
    writer: pq.ParquetWriter, windows: Windows, metadata: ShardMetadata, frequent_ids: np.ndarray | None = None
) -> None:
    """Adds what the footer says, before the writer is closed."""
    for key, value in _footer_metadata(windows, metadata, frequent_ids).items():
        # One at a time: within one call the order would be that of a hash table.
        writer.add_key_value_metadata({key.decode(): value})


def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of the columns in the file."""
    return [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in schema]


def row_group_bounds(window_offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Rows (start, stop) of each row group: whole windows, at least 8,192 positions, or 6,144 in blocks of eight.

    Blocks of eight windows are what a shuffled reader takes: a row group should not end inside one.
    """
    start = 0
    for window, offset in enumerate(window_offsets[1:].tolist(), start=1):
        least = BLOCK_POSITIONS if window % BLOCK_WINDOWS == 0 else ROW_GROUP_POSITIONS
        if offset - start >= least:
            yield start, offset
            start = offset
    if start < window_offsets[-1]:
        yield start, int(window_offsets[-1])
