"""Writes what rules leave of a shard as a new shard, for `compact` and `merge`.

Stored columns are filtered without decoding, because decoding divides by the row's sum and would not give the same
bytes again. So a reader finds exactly what the rules showed before.
"""

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from logitcask.schemas import storage
from logitcask.schemas.dataset.layout import record_path, shard_path
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.row_filter import choose, keep_windows, parts_taken
from logitcask.schemas.dataset.rules import Rules, rules_to_json
from logitcask.schemas.dataset.shard_view import SnapshotShard, stored_record
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot
from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.fingerprints import digest, fingerprint
from logitcask.schemas.format import writer
from logitcask.schemas.format.columns.registry import filter_rows
from logitcask.schemas.format.columns.tokens import encode_windows
from logitcask.schemas.format.reader import Block, ShardReader
from logitcask.schemas.format.writer import EncodedShard
from logitcask.schemas.seals import create_sealed
from logitcask.schemas.stats.by_source import SourceSummary
from logitcask.schemas.stats.outlier_windows import OutlierWindows, find_outliers, merge_outliers
from logitcask.schemas.stats.target_statistics import Statistics


def describe_view(record: UnitRecord, reader: ShardReader, rules: Rules) -> UnitRecord:
    """A shard's record with the counts and statistics of what rules leave; sizes are those of the file.

    Reads the whole shard. Timings are dropped: they include the cost of rows that are left out.
    """
    statistics, extremes = Statistics(), OutlierWindows()
    num_windows = num_positions = 0
    for block in blocks_of(SnapshotShard(reader, rules)):
        assert block.targets is not None, "target shards only"
        statistics += Statistics.of(block.windows, block.targets)
        found = find_outliers(record.name, block.windows, block.targets)
        extremes = merge_outliers([extremes, _shift(found, num_windows)])
        num_windows += block.windows.num_windows
        num_positions += block.windows.num_positions
    taken = parts_taken(reader.parts, rules)
    num_documents = sum(part.offset == 0 for part, one in zip(reader.parts, taken, strict=True) if one)
    summary = SourceSummary(num_documents=num_documents, num_positions=num_positions, statistics=statistics)
    return replace(
        record,
        num_windows=num_windows,
        num_positions=num_positions,
        num_documents=num_documents,
        statistics=statistics,
        by_source=dict.fromkeys(record.by_source, summary) if len(record.by_source) == 1 else {},
        extremes=extremes,
        timings={},
    )


def _shift(extremes: OutlierWindows, num_windows: int) -> OutlierWindows:
    """Numbers windows within the shard instead of within the block that starts at window `num_windows`."""
    return {
        measure: tuple(replace(one, window=one.window + num_windows) for one in found)
        for measure, found in extremes.items()
    }


def blocks_of(shard: SnapshotShard) -> Iterator[Block]:
    return (shard.read(start, stop) for start, stop in shard.blocks())


def rewrite_shard(reader: ShardReader, data: bytes, rules: Rules) -> EncodedShard:
    """What rules leave of a target shard; the same bytes if they leave everything.

    Args:
        reader: The shard.
        data: The whole file, its digest checked.
        rules: The rules that leave something out.

    Raises:
        CorruptShardError: A page is damaged.
    """
    reader.check_sizes()
    block = reader.read()
    assert block.targets is not None, "target shards only"
    choice = choose(block.windows, block.targets, rules)
    windows = keep_windows(block.windows, choice)
    stored = pq.read_table(pa.BufferReader(data), page_checksum_verification=True, use_threads=False)
    tokens = encode_windows(windows, reader.metadata.vocab_size)
    table = filter_rows(stored, tokens, choice.rows, choice.silenced)
    return writer.encode_table(table, windows, reader.metadata, frequent_ids=reader.frequent_ids)


def rewritten_name(snapshot: Snapshot, entry: ShardEntry) -> str:
    """The name of a rewritten shard, which follows from the shard and the rules."""
    return f"{entry.name}-{fingerprint([entry.digest, rules_to_json(snapshot.rules_of(entry))])[:12]}"


def copy_shard(snapshot: Snapshot, entry: ShardEntry, out: str, name: str) -> UnitRecord:
    """Writes what the snapshot shows of a shard, and its record, into a dataset. Existing files are kept.

    Args:
        snapshot, entry: The shard.
        out: A dataset's directory.
        name: Its name there.

    Raises:
        MissingShardError, CorruptShardError: It cannot be read, or is damaged.
    """
    data = read_checked(snapshot, entry)
    record = replace(stored_record(snapshot, entry), name=name)
    if snapshot.rules_of(entry):
        data, record = _rewrite(snapshot, entry, data, record)
    elif name != entry.name:
        record = replace(record, extremes=_renamed(record, name))
    storage.create(storage.inside(out, shard_path("targets", entry.split, name)), data)
    create_sealed(storage.inside(out, record_path("targets", entry.split, name)), record.to_json())
    return record


def read_checked(snapshot: Snapshot, entry: ShardEntry) -> bytes:
    """The whole file.

    Raises:
        CorruptShardError: It differs from the one that the snapshot lists.
        MissingShardError: It does not exist.
    """
    url = snapshot.shard_url(entry)
    with ShardReader(url, footer_digest=entry.footer_digest):
        data = storage.read_bytes(url)
    if digest(data) != entry.digest:
        raise CorruptShardError(
            f"{storage.redact(url)}: digest {digest(data)}, but {entry.digest} was written; restore the file"
        )
    return data


def _rewrite(snapshot: Snapshot, entry: ShardEntry, data: bytes, record: UnitRecord) -> tuple[bytes, UnitRecord]:
    rules = snapshot.rules_of(entry)
    with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
        shard: EncodedShard = rewrite_shard(reader, data, rules)
        view = describe_view(record, reader, rules)
    return shard.data, replace(view.of_shard(shard), environment={**record.environment, "rewritten_from": entry.name})


def _renamed(record: UnitRecord, name: str) -> dict:
    return {
        measure: tuple(replace(extreme, shard=name) for extreme in extremes)
        for measure, extremes in record.extremes.items()
    }
