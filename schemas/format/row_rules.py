"""The rules of FORMAT.md that rows can break, for `verify` and for a writer before it commits a shard."""

from dataclasses import dataclass, field

from logitcask.schemas.format.columns.registry import broken_rules
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.targets import TargetRows, Windows


@dataclass(kw_only=True, slots=True)
class RowCheck:
    """Checks the rows of a shard, block by block in their order.

    Attributes:
        metadata: What the shard is.
        found: Every broken rule with the first row that breaks it, as text.
        num_targets: Rows with a target so far.
    """

    metadata: ShardMetadata
    found: list[str] = field(default_factory=list)
    num_targets: int = 0
    _num_rows: int = 0
    _num_parts: int = 0

    def add(self, windows: Windows, targets: TargetRows | None) -> None:
        """Checks the next windows.

        Args:
            windows: T rows.
            targets: Their targets, stored or not yet stored; None in a token shard.
        """
        broken = list(broken_rules(windows, targets, self.metadata))
        if windows.num_positions:
            if windows.part[0] != self._num_parts:
                broken.append((f"`document` is {windows.part[0]}, expected {self._num_parts}", 0))
            self._num_parts = int(windows.part[-1]) + 1
        self.found += [f"{rule} (first in row {self._num_rows + row})" for rule, row in broken]
        self._num_rows += windows.num_positions
        if targets is not None:
            self.num_targets += int(targets.has_target().sum())

    def finish(self, num_parts: int) -> list[str]:
        """All broken rules, after the last block.

        Args:
            num_parts: Parts that the shard lists.
        """
        if self._num_parts != num_parts:
            self.found.append(f"rows of {self._num_parts} parts, but {num_parts} parts are listed")
        return self.found


def broken_row_rules(windows: Windows, targets: TargetRows | None, metadata: ShardMetadata) -> list[str]:
    """The rules that the rows of a whole shard break, as text.

    Args:
        windows: All windows of the shard.
        targets: Their targets, stored or not yet stored; None in a token shard.
        metadata: What the shard is.
    """
    check = RowCheck(metadata=metadata)
    check.add(windows, targets)
    return check.finish(len(windows.parts))
