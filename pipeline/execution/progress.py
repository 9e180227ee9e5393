"""How far the job is, on stderr: one bar on a terminal, a plain line every ten seconds elsewhere.

Machines are told the same figures by listeners (`pipeline.execution.telemetry`).
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_PLAIN_INTERVAL_SECONDS = 10.0
# The rate is that of the last minute: a job's first seconds (loading the teacher) say nothing about its end.
_RATE_WINDOW_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How far a stage is.

    Attributes:
        stage: What is being done: "tokenize" or "annotate".
        unit: What is counted: "tokens" or "bytes".
        done, total: How much, of what this run began with.
        rate: Amount a second over the last minute; None before it can be known.
        seconds_left: At that rate.
        forward_share: Share of the workers' time that goes into the teacher; None where it is not known.
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
        label: What is being done.
        unit: What is counted: "tokens" or "bytes".
        total: How much there is to do.
        forward_share: Share of the workers' time that goes into the teacher, if known.
    """

    label: str
    unit: str
    total: int
    forward_share: float | None = None
    _samples: list[tuple[float, int]] = field(default_factory=list)

    def update(self, done: int, now_seconds: float) -> None:
        """Takes a sample.

        Only changes count, since work arrives in batches that may take a minute each; and the clock starts with the
        first of them, since nobody knows when the teacher was loaded and that batch begun.
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
        """Amount a second over the last minute; None before it can be known."""
        if len(self._samples) < 2:
            return None
        (first_seconds, first), (last_seconds, last) = self._samples[0], self._samples[-1]
        return (last - first) / max(last_seconds - first_seconds, 1e-9)

    def describe(self) -> str:
        """`annotate: 12,288 of 40,960 tokens (30 %), 340 tokens/s, 1 min 24 s left`."""
        if not self.done:
            return f"{self.label}: starting on {self.total:,} {self.unit}"
        share = 100 * self.done // max(self.total, 1)
        text = f"{self.label}: {self.done:,} of {self.total:,} {self.unit} ({share} %)"
        if not self.rate:
            return text
        left = format_duration((self.total - self.done) / self.rate)
        forward = "" if self.forward_share is None else f"{100 * self.forward_share:.0f} % in forward, "
        return f"{text}, {format_rate(self.rate)} {self.unit}/s, {forward}{left} left"

    def reading(self) -> Reading:
        """All figures of now."""
        rate = self.rate
        return Reading(
            stage=self.label,
            unit=self.unit,
            done=self.done,
            total=self.total,
            rate=rate,
            seconds_left=(self.total - self.done) / rate if rate else None,
            forward_share=self.forward_share,
        )


def format_rate(rate: float) -> str:
    """A rate with three digits where it is small."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def format_duration(seconds: float) -> str:
    """`1 h 02 min`, `1 min 24 s`, `7 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


class ProgressDisplay:
    """Draws a meter: a rich bar on a terminal, else lines."""

    def __init__(self, meter: Meter, console: Console, listeners: Sequence[Listener]) -> None:
        self._meter = meter
        self._listeners = listeners
        self._console = console
        self._next_line_seconds = time.monotonic() + _PLAIN_INTERVAL_SECONDS
        self._bar = Progress(BarColumn(bar_width=30), TextColumn("{task.description}"), console=console, transient=True)
        self._task = self._bar.add_task("", total=max(meter.total, 1))

    def update(self, done: int, forward_share: float | None = None) -> None:
        """Shows how much is done now, and how much of the time goes into the teacher."""
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
    label: str, unit: str, total: int, *, quiet: bool = False, listeners: Sequence[Listener] = ()
) -> Iterator[ProgressDisplay]:
    """A display that is drawn while the context lasts; listeners hear whatever it is told."""
    console = Console(file=sys.stderr, quiet=quiet)
    display = ProgressDisplay(Meter(label=label, unit=unit, total=total), console, listeners)
    if console.is_terminal and not quiet:
        with display._bar:
            yield display
    else:
        yield display
