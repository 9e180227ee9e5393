"""Progress of the job on stderr: one bar on a terminal, a plain line every ten seconds elsewhere.

Listeners export the same figures to other programs (`pipeline.execution.telemetry`).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from logitcask.schemas.terminal.console import message_console

_PLAIN_INTERVAL_SECONDS = 10.0
# The rate covers the last minute: a job's first seconds (loading the teacher) do not predict its end.
_RATE_WINDOW_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Progress of a stage at one moment.

    Attributes:
        stage: "tokenize" or "annotate".
        unit: What is counted: "tokens" or "bytes".
        done, total: Amount done, and the amount that was left when this run began.
        rate: Amount a second over the last minute; None until two samples exist.
        seconds_left: Time left at that rate.
        forward_share: Share of the workers' time that the teacher takes; None if unknown.
    """

    stage: str
    unit: str
    done: int
    total: int
    rate: float | None
    seconds_left: float | None
    forward_share: float | None


Listener = Callable[[Reading], None]


@dataclass(kw_only=True, slots=True)
class Meter:
    """Amount done, rate and time left, from (time, amount) samples.

    Attributes:
        stage, unit, total, forward_share: As in `Reading`.
    """

    stage: str
    unit: str
    total: int
    forward_share: float | None = None
    _samples: list[tuple[float, int]] = field(default_factory=list)

    def update(self, done: int, now_seconds: float) -> None:
        """Adds a sample.

        Only changes count, because work arrives in batches that may take a minute each. The clock starts with the
        first batch, because it is not known when the teacher was loaded and that batch began.
        """
        amount = min(done, self.total)
        if amount == self.done:
            return
        self._samples.append((now_seconds, amount))
        while len(self._samples) > 2 and self._samples[1][0] < now_seconds - _RATE_WINDOW_SECONDS:
            del self._samples[0]

    @property
    def done(self) -> int:
        return self._samples[-1][1] if self._samples else 0

    @property
    def rate(self) -> float | None:
        """Amount a second over the last minute; None until two samples exist."""
        if len(self._samples) < 2:
            return None
        (first_seconds, first), (last_seconds, last) = self._samples[0], self._samples[-1]
        return (last - first) / max(last_seconds - first_seconds, 1e-9)

    def describe(self) -> str:
        """`annotate: 12,288 of 40,960 tokens (30 %), 340 tokens/s, 1 min 24 s left`."""
        if not self.done:
            return f"{self.stage}: starting on {self.total:,} {self.unit}"
        share = 100 * self.done // max(self.total, 1)
        text = f"{self.stage}: {self.done:,} of {self.total:,} {self.unit} ({share} %)"
        if not self.rate:
            return text
        left = format_duration((self.total - self.done) / self.rate)
        forward = "" if self.forward_share is None else f"{100 * self.forward_share:.0f} % in forward, "
        return f"{text}, {format_rate(self.rate)} {self.unit}/s, {forward}{left} left"

    def reading(self) -> Reading:
        rate = self.rate
        return Reading(
            stage=self.stage,
            unit=self.unit,
            done=self.done,
            total=self.total,
            rate=rate,
            seconds_left=(self.total - self.done) / rate if rate else None,
            forward_share=self.forward_share,
        )


def format_rate(rate: float) -> str:
    """At least two significant digits."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def format_duration(seconds: float) -> str:
    """`1 h 02 min`, `1 min 24 s`, `7 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


class ProgressDisplay:
    """Shows a meter: as a rich bar on a terminal, else as lines."""

    def __init__(self, meter: Meter, console: Console, listeners: Sequence[Listener]) -> None:
        self._meter = meter
        self._listeners = listeners
        self._console = console
        self._next_line_seconds = time.monotonic() + _PLAIN_INTERVAL_SECONDS
        self._bar = Progress(
            BarColumn(bar_width=30), TextColumn("{task.description}", markup=False), console=console, transient=True
        )
        self._task = self._bar.add_task("", total=max(meter.total, 1))

    def update(self, done: int, forward_share: float | None = None) -> None:
        """Shows the amount done, and the share of the workers' time that the teacher takes."""
        now_seconds = time.monotonic()
        self._meter.update(done, now_seconds)
        if forward_share is not None:
            self._meter.forward_share = forward_share
        for listener in self._listeners:
            listener(self._meter.reading())
        if self._console.is_terminal:
            self._bar.update(self._task, completed=self._meter.done, description=self._meter.describe())
        elif now_seconds >= self._next_line_seconds and not self._console.quiet:
            self._next_line_seconds = now_seconds + _PLAIN_INTERVAL_SECONDS
            print(self._meter.describe(), file=self._console.file, flush=True)


@contextmanager
def progress_display(
    stage: str, unit: str, total: int, *, quiet: bool = False, listeners: Sequence[Listener] = ()
) -> Iterator[ProgressDisplay]:
    """A display that is shown while the context lasts; listeners get a reading at each update."""
    console = message_console(quiet=quiet)
    display = ProgressDisplay(Meter(stage=stage, unit=unit, total=total), console, listeners)
    if console.is_terminal and not quiet:
        with display._bar:
            yield display
    else:
        yield display
