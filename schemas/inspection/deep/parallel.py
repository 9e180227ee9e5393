"""Summing over all shards of a dataset, several at a time.

Processes, not threads: a shard is read in many short steps between which the interpreter's lock changes hands, and two
threads are hardly faster than one.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

from logitcask.schemas.dataset.shard_view import open_shard
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot
from logitcask.schemas.format.columns import ENTROPY_FIELD, sample_column
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.inspection.deep.sums import DeepSums, add_up, sum_blocks

# A process takes as long to start as it takes to read some hundred thousand tokens.
_TOKENS_OF_A_PROCESS = 1 << 20


def sum_shards(snapshot: Snapshot, progress: Callable[[int], None], *, num_processes: int | None = None) -> DeepSums:
    """The sums over all shards, added in the order of the snapshot whichever is done first.

    Args:
        snapshot: What to read.
        progress: Called with the number of rows of each shard that is done.
        num_processes: How many read; 1: this one. By default one a processor, if there is enough for all to do.

    Raises:
        CorruptShardError, MissingShardError: A shard is damaged or gone.
    """
    total = snapshot.total()
    wanted = num_processes or min(os.cpu_count() or 1, total.num_shards, total.num_positions // _TOKENS_OF_A_PROCESS)
    return add_up(_counted(_sums(snapshot, wanted), progress))


def _sums(snapshot: Snapshot, num_processes: int) -> Iterator[DeepSums]:
    if num_processes <= 1:
        yield from (_sum_shard(snapshot, entry) for entry in snapshot.each_shard())
        return
    # Spawned: a process forked from one with threads may hang.
    context = get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context, initializer=_leave_interrupts) as pool:
        try:
            yield from _in_order(pool, snapshot, num_ahead=2 * num_processes)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, snapshot: Snapshot, num_ahead: int) -> Iterator[DeepSums]:
    """A million shards are not all queued at once."""
    begun: deque[Future[DeepSums]] = deque()
    for entry in snapshot.each_shard():
        begun.append(pool.submit(_sum_shard, snapshot, entry))
        if len(begun) > num_ahead:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def _leave_interrupts() -> None:
    """The process that was started by hand stops all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _sum_shard(snapshot: Snapshot, entry: ShardEntry) -> DeepSums:
    with open_shard(snapshot, entry) as shard:
        options = _needed_options(shard.metadata)
        return sum_blocks(shard.read_stored(start, stop, options=options, ids=False) for start, stop in shard.blocks())


def _needed_options(metadata: ShardMetadata) -> list[str]:
    """All optional columns but the tails at other temperatures, of which nothing is summed."""
    num_samples = metadata.scheme.num_tail_samples if metadata.scheme else 0
    return [ENTROPY_FIELD.name, *map(sample_column, range(num_samples))]


def _counted(sums: Iterator[DeepSums], progress: Callable[[int], None]) -> Iterator[DeepSums]:
    for one in sums:
        progress(sum(one.statistics.positions_by_kind.values()))
        yield one
