"""Progress for machines: a line of JSON every few seconds, and gauges that Prometheus can scrape.

Both say what the bar says (`pipeline.execution.progress.Reading`), of the driver, for as long as the job runs. On
clusters Beam's own counters tell more (`pipeline.execution.transforms`).
"""

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from logitcask.pipeline.execution.progress import Listener, Reading
from logitcask.schemas.errors import UsageError

_GAUGES = {
    "done": "Amount done of this run's stage",
    "total": "Amount that this run's stage began with",
    "rate": "Amount a second over the last minute",
    "seconds_left": "Seconds left at that rate",
    "forward_share": "Share of the workers' time that goes into the teacher",
}


@contextmanager
def telemetry(heartbeat: str | None, interval_seconds: float, prometheus: str | None) -> Iterator[Sequence[Listener]]:
    """The listeners that were asked for, while the context lasts.

    Args:
        heartbeat: File that gets the lines, appended; None for none.
        interval_seconds: Between lines.
        prometheus: PORT of the loopback interface, or HOST:PORT; None for no endpoint.

    Raises:
        UsageError: The file cannot be written, the address cannot be served, or prometheus-client is not installed.
    """
    with ExitStack() as stack:
        listeners: list[Listener] = []
        if heartbeat is not None:
            listeners.append(stack.enter_context(heartbeat_lines(heartbeat, interval_seconds)))
        if prometheus is not None:
            listeners.append(stack.enter_context(prometheus_gauges(prometheus)))
        yield listeners


@contextmanager
def heartbeat_lines(path: str, interval_seconds: float) -> Iterator[Listener]:
    """Appends a reading to a file every so many seconds, whenever a stage begins, and the last one at the end."""
    try:
        file = Path(path).expanduser().open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise UsageError(f"--heartbeat {path}: cannot be written ({error.strerror})") from error
    due_seconds = 0.0
    last: Reading | None = None
    written: Reading | None = None

    def write(reading: Reading) -> None:
        nonlocal written
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **dataclasses.asdict(reading)}
        file.write(json.dumps(line) + "\n")
        written = reading

    def listen(reading: Reading) -> None:
        nonlocal due_seconds, last
        begins = last is None or last.stage != reading.stage
        if begins and last is not None and last is not written:
            write(last)
        last = reading
        if begins or time.monotonic() >= due_seconds:
            due_seconds = time.monotonic() + interval_seconds
            write(reading)

    with file:
        yield listen
        if last is not None and last is not written:
            write(last)


@contextmanager
def prometheus_gauges(address: str) -> Iterator[Listener]:
    """Serves the last reading at http://ADDRESS/metrics as gauges `logitcask_…`, labelled by stage and unit."""
    try:
        from prometheus_client import CollectorRegistry, Gauge, start_http_server
    except ImportError as error:
        raise UsageError("--prometheus needs prometheus-client: pip install 'logitcask[prometheus]'") from error
    host, port = _parse(address)
    registry = CollectorRegistry()
    gauges = {
        name: Gauge(f"logitcask_{name}", text, ("stage", "unit"), registry=registry) for name, text in _GAUGES.items()
    }
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise UsageError(f"--prometheus {address}: cannot be served ({error.strerror})") from error

    def listen(reading: Reading) -> None:
        for name, gauge in gauges.items():
            figure = getattr(reading, name)
            if figure is not None:
                gauge.labels(reading.stage, reading.unit).set(figure)

    try:
        yield listen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65_536:
        raise UsageError(f"--prometheus {address}: give PORT or HOST:PORT, a port being 1 to 65535")
    return host or "127.0.0.1", int(port)
