"""A progress bar on stderr, where that is a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def row_progress(num_rows: int) -> Iterator[Callable[[int], None]]:
    """A function that advances the bar by a number of rows, from any thread; the bar is gone afterwards."""
    console = Console(stderr=True)
    columns = (
        TextColumn("inspect"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} tokens"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("inspect", total=num_rows)
        yield lambda rows: bar.advance(task, rows)
