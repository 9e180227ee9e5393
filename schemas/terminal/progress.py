"""Progress bars on stderr, if it is a terminal; they disappear at the end."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, track

from logitcask.schemas.dataset.snapshot import ShardEntry
from logitcask.schemas.terminal.console import message_console


@contextmanager
def row_progress(num_rows: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar of rows; yields a function that advances it by a number of rows, from any thread."""
    console = message_console()
    columns = (
        TextColumn("inspect"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} tokens"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("inspect", total=num_rows)
        yield lambda rows: bar.advance(task, rows)


def shard_progress(entries: Iterable[ShardEntry], label: str, num_shards: int) -> Iterator[ShardEntry]:
    """Yields the shards; the bar counts those that are finished."""
    console = message_console()
    yield from track(entries, label, total=num_shards, console=console, transient=True, disable=not console.is_terminal)
