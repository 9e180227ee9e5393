"""Encodes and checks the targets of a unit in its own thread, while the teacher computes the next batch."""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from logitcask.schemas.errors import WrongTargetsError
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.row_rules import RowCheck
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.format.writer import EncodedShard, ShardStream
from logitcask.schemas.stats.target_statistics import Statistics
from logitcask.schemas.stats.vocabulary_statistics import VocabularyStatistics

_WAITING_BATCHES = 2


class UnitEncoder:
    """Encodes a unit's targets in its own thread. A context manager: the thread ends with the block.

    Args:
        windows: All windows of the unit.
        metadata: Of its shard.

    Attributes:
        seconds: Spent on encoding so far, checks included.
        check_seconds: Spent on checks so far.
    """

    def __init__(self, windows: Windows, metadata: ShardMetadata) -> None:
        self._stream = ShardStream(windows, metadata)
        self._pieces: list[Targets] = []
        self._statistics = Statistics()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")
        self._waiting: deque[Future[None]] = deque()
        self._check = RowCheck(metadata=metadata)
        self._num_parts = len(windows.parts)
        self.seconds = self.check_seconds = 0.0

    def __enter__(self) -> "UnitEncoder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error waiting batches are not needed; a running one ends within one row group.
        self._pool.shutdown(cancel_futures=True)

    def add(self, windows: Windows, targets: Targets, vocabulary: VocabularyStatistics) -> None:
        """Queues the next batch; blocks while two are waiting.

        Raises:
            VocabularyError: An earlier batch holds an id that is not in the vocabulary.
        """
        while len(self._waiting) >= _WAITING_BATCHES:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._encode, windows, targets, vocabulary))

    def finish(self) -> tuple[EncodedShard, Targets, Statistics]:
        """Waits for all batches; returns the shard, all targets, and their statistics.

        Raises:
            As `add`.
        """
        while self._waiting:
            self._waiting.popleft().result()
        return self._pool.submit(self._stream.finish).result(), Targets.concatenate(self._pieces), self._statistics

    def require_sound(self) -> None:
        """Checks the rules of the format that rows can break, after `finish`.

        Raises:
            WrongTargetsError: The targets break one.
        """
        for broken in self._check.finish(self._num_parts):
            raise WrongTargetsError(
                f"the teacher gave targets that break a rule of the format: {broken}. Nothing was committed; if this "
                "happens again, check the teacher and its device"
            )

    def _encode(self, windows: Windows, targets: Targets, vocabulary: VocabularyStatistics) -> None:
        started_seconds = time.perf_counter()
        self._pieces.append(targets)
        self._statistics += Statistics.of(windows, targets, vocabulary=vocabulary)
        self._stream.add(targets)
        check_seconds = time.perf_counter()
        self._check.add(windows, targets)
        self.check_seconds += time.perf_counter() - check_seconds
        self.seconds += time.perf_counter() - started_seconds
