"""Sums over all shards of a dataset, several of them at a time.

Processes, not threads: reading a shard takes many short steps that each need the interpreter's lock, so two threads
are hardly faster than one.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

from logitcask.schemas.dataset.shard_view import open_shard
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot
from logitcask.schemas.format.columns.single_values import ENTROPY
from logitcask.schemas.format.columns.tail_samples import sample_columns
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.inspection.deep.row_sums import DeepSums, add_up, sum_blocks

# Starting a process takes as long as reading some hundred thousand tokens.
_MIN_TOKENS_PER_PROCESS = 1 << 20


def sum_shards(snapshot: Snapshot, progress: Callable[[int], None], *, num_processes: int | None = None) -> DeepSums:
    """The sums over all shards, always added in the order of the snapshot.

    Args:
        snapshot: The snapshot to read.
        progress: Called with the number of rows of each finished shard.
        num_processes: Number of processes; 1 reads in this one. Default: one for each processor, fewer for a small
            dataset.

    Raises:
        CorruptShardError, MissingShardError: A shard is damaged or missing.
    """
    total = snapshot.total()
    wanted = num_processes or min(os.cpu_count() or 1, total.num_shards, total.num_positions // _MIN_TOKENS_PER_PROCESS)
    return add_up(_counted(_sums(snapshot, wanted), progress))


def _sums(snapshot: Snapshot, num_processes: int) -> Iterator[DeepSums]:
    if num_processes <= 1:
        yield from (_sum_shard(snapshot, entry) for entry in snapshot.each_shard())
        return
    # Spawned: a process that is forked from a process with threads may hang.
    context = get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context, initializer=_ignore_interrupts) as pool:
        try:
            yield from _in_order(pool, snapshot, num_ahead=2 * num_processes)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, snapshot: Snapshot, num_ahead: int) -> Iterator[DeepSums]:
    """Queues at most `num_ahead` shards: a dataset may have a million."""
    pending: deque[Future[DeepSums]] = deque()
    for entry in snapshot.each_shard():
        pending.append(pool.submit(_sum_shard, snapshot, entry))
        if len(pending) > num_ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _ignore_interrupts() -> None:
    """Only the main process handles Ctrl-C; it stops the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _sum_shard(snapshot: Snapshot, entry: ShardEntry) -> DeepSums:
    with open_shard(snapshot, entry) as shard:
        options = _needed_options(shard.metadata)
        return sum_blocks(shard.read_stored(start, stop, options=options, ids=False) for start, stop in shard.blocks())


def _needed_options(metadata: ShardMetadata) -> list[str]:
    """All optional columns except the tails at other temperatures, which are not summed."""
    return [ENTROPY, *sample_columns(metadata)]


def _counted(sums: Iterator[DeepSums], progress: Callable[[int], None]) -> Iterator[DeepSums]:
    for one in sums:
        progress(sum(one.statistics.positions_by_kind.values()))
        yield one
