"""Machine-readable progress: a line of JSON every few seconds, and gauges for Prometheus.

Both export the figures of the progress bar (`pipeline.execution.progress.Reading`) from the driver while the job
runs. On clusters Beam's own counters say more (`pipeline.execution.transforms`).
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
    "total": "Amount that was left when this run's stage began",
    "rate": "Amount a second over the last minute",
    "seconds_left": "Seconds left at that rate",
    "forward_share": "Share of the workers' time that the teacher takes",
}


@contextmanager
def telemetry(heartbeat: str | None, interval_seconds: float, prometheus: str | None) -> Iterator[Sequence[Listener]]:
    """The requested listeners, while the context lasts.

    Args:
        heartbeat: File to which lines are appended, or None.
        interval_seconds: Seconds between lines.
        prometheus: PORT of the loopback interface, or HOST:PORT, or None.

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
    """Appends readings to a file: one each interval, and the first and the last of each stage."""
    try:
        file = Path(path).expanduser().open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise UsageError(f"--heartbeat {path}: cannot be written ({error.strerror})") from error
    next_line_seconds = 0.0
    last: Reading | None = None
    written: Reading | None = None

    def write(reading: Reading) -> None:
        nonlocal written
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **dataclasses.asdict(reading)}
        file.write(json.dumps(line) + "\n")
        written = reading

    def listen(reading: Reading) -> None:
        nonlocal next_line_seconds, last
        begins = last is None or last.stage != reading.stage
        if begins and last is not None and last is not written:
            write(last)
        last = reading
        if begins or time.monotonic() >= next_line_seconds:
            next_line_seconds = time.monotonic() + interval_seconds
            write(reading)

    with file:
        yield listen
        if last is not None and last is not written:
            write(last)


@contextmanager
def prometheus_gauges(address: str) -> Iterator[Listener]:
    """Serves the last reading at http://ADDRESS/metrics as gauges `logitcask_…`, labeled by stage and unit."""
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
        raise UsageError(f"--prometheus {address}: expected PORT or HOST:PORT, with a port from 1 to 65535")
    return host or "127.0.0.1", int(port)
