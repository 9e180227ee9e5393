"""How fast `inspect --deep` reads: copies of a real dataset's shards, up to a number of tokens.

    python bench/deep.py demo/smollm/shards

Prints tokens per second of wall-clock time with one process and with two, including their start, and the speed of
reading alone, with our reader and with the Parquet library. All are measured in turns, and the fastest round of each
counts: a busy machine slows all of them equally.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from logitcask.schemas.dataset.layout import shard_path
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.shard_view import open_shard
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot, load_snapshot
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.format.writer import EncodedShard, encode_shard
from logitcask.schemas.inspection.deep.shard_sums import sum_shards
from logitcask.schemas.stats.target_statistics import Statistics

SPLIT = "train"
ROUNDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast `inspect --deep` reads a dataset.")
    parser.add_argument("dataset", help="a finished dataset, such as the one that `make demo` writes")
    parser.add_argument("--tokens", type=int, default=6_000_000, help="copy its shards until they hold this many")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        snapshot = repeated(load_snapshot(args.dataset), args.tokens, directory)
        report = measure(snapshot)
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)


def repeated(snapshot: Snapshot, num_tokens: int, out: str) -> Snapshot:
    """A dataset of copies of one shard: all windows of a snapshot's split."""
    windows, targets, shard = gathered(snapshot)
    record = UnitRecord(name="", kind="targets", split=SPLIT, statistics=Statistics.of(windows, targets)).of_shard(
        shard
    )
    names = [f"{number:06d}" for number in range(-(-num_tokens // shard.num_positions))]
    first, *others = (Path(out, shard_path("targets", SPLIT, name)) for name in names)
    first.parent.mkdir(parents=True)
    first.write_bytes(shard.data)
    for other in others:
        other.hardlink_to(first)
    records = [dataclasses.replace(record, name=name) for name in names]
    fields = {"complete": True, "identity": snapshot.identity, "num_documents_in": 0, "rejected": {}}
    return write_draft(out, Draft.of_records(records, **fields))


def measure(snapshot: Snapshot) -> dict[str, Any]:
    total = snapshot.total()
    entries = snapshot.shards()
    seconds = fastest(
        {
            "inspect --deep, one process": lambda: sum_shards(snapshot, ignore, num_processes=1),
            "inspect --deep, two processes": lambda: sum_shards(snapshot, ignore, num_processes=2),
            "our reader alone, one process": lambda: read_all(snapshot, entries),
            "Parquet library alone, one process": lambda: decode_all(snapshot, entries),
        }
    )
    return {
        "tokens": total.num_positions,
        "entries_per_token": total.statistics.head_entries / total.num_positions,
        "tokens_per_second": {name: total.num_positions / spent for name, spent in seconds.items()},
    }


def gathered(snapshot: Snapshot) -> tuple[Windows, Targets, EncodedShard]:
    """All windows and targets of the split, and the shard that they make together."""
    blocks, metadata = [], None
    for entry in snapshot.shards(SPLIT):
        with open_shard(snapshot, entry) as shard:
            blocks.append(shard.read())
            metadata = shard.metadata
    assert metadata is not None, f"the dataset has no {SPLIT} shards"
    windows = Windows.concatenate([block.windows for block in blocks])
    targets = Targets.concatenate([block.targets for block in blocks if block.targets])
    return windows, targets, encode_shard(windows, targets, metadata)


def read_all(snapshot: Snapshot, entries: Sequence[ShardEntry]) -> None:
    for entry in entries:
        with open_shard(snapshot, entry) as shard:
            for start, stop in shard.blocks():
                shard.read_stored(start, stop)


def decode_all(snapshot: Snapshot, entries: Sequence[ShardEntry]) -> None:
    for entry in entries:
        with pq.ParquetFile(snapshot.shard_url(entry), page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group, use_threads=False)


def fastest(works: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Seconds of wall-clock time of the fastest round."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def ignore(_rows: int) -> None:
    """No progress bar."""


def show(report: Mapping[str, Any]) -> None:
    title = f"{report['tokens']:,} tokens, {report['entries_per_token']:.1f} entries each"
    table = Table("", "M tokens/s", title=title)
    for name, speed in report["tokens_per_second"].items():
        table.add_row(name, f"{speed / 1e6:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
