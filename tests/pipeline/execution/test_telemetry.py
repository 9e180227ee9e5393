"""Machine-readable progress: lines of JSON, and gauges that are served only while the job runs."""

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from logitcask.pipeline.execution.progress import Reading, progress_display
from logitcask.pipeline.execution.telemetry import heartbeat_lines, prometheus_gauges, telemetry
from logitcask.schemas.errors import UsageError


def reading(done: int, stage: str = "annotate", forward_share: float | None = 0.9) -> Reading:
    return Reading(
        stage=stage,
        unit="tokens",
        done=done,
        total=100,
        rate=5.0 if done else None,
        seconds_left=(100 - done) / 5 if done else None,
        forward_share=forward_share,
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return answer.read().decode()


def test_the_first_and_last_reading_of_each_stage_are_always_written(tmp_path: Path) -> None:
    path = tmp_path / "beats"
    with heartbeat_lines(str(path), 3600) as listen:
        for one in (reading(0, "tokenize"), reading(50, "tokenize"), reading(100, "tokenize")):
            listen(one)
        for one in (reading(0), reading(10), reading(20)):
            listen(one)
    assert [(line["stage"], line["done"]) for line in lines(path)] == [
        ("tokenize", 0),
        ("tokenize", 100),
        ("annotate", 0),
        ("annotate", 20),
    ]


def test_a_line_contains_all_figures(tmp_path: Path) -> None:
    path = tmp_path / "beats"
    with heartbeat_lines(str(path), 1e-9) as listen:
        listen(reading(20))
    (line,) = lines(path)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "stage": "annotate",
        "unit": "tokens",
        "done": 20,
        "total": 100,
        "rate": 5.0,
        "seconds_left": 16.0,
        "forward_share": 0.9,
    }


def test_lines_are_appended_immediately(tmp_path: Path) -> None:
    path = tmp_path / "beats"
    path.write_text("{}\n")
    with heartbeat_lines(str(path), 1e-9) as listen:
        listen(reading(1))
        assert len(lines(path)) == 2


def test_gauges_are_served_only_while_the_job_runs() -> None:
    port = free_port()
    with prometheus_gauges(str(port)) as listen:
        listen(reading(0, forward_share=None))
        assert "logitcask_forward_share{" not in scrape(port)
        listen(reading(20))
        text = scrape(port)
        assert 'logitcask_done{stage="annotate",unit="tokens"} 20.0' in text
        assert 'logitcask_forward_share{stage="annotate",unit="tokens"} 0.9' in text
        assert 'logitcask_seconds_left{stage="annotate",unit="tokens"} 16.0' in text
    with pytest.raises(urllib.error.URLError):
        scrape(port)


@pytest.mark.parametrize("address", ["", "0", "99999", "http", "127.0.0.1:x"])
def test_an_invalid_address_is_bad_usage(address: str) -> None:
    with pytest.raises(UsageError, match="PORT or HOST:PORT"), prometheus_gauges(address):
        pass


def test_an_occupied_port_is_bad_usage() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = str(taken.getsockname()[1])
        with pytest.raises(UsageError, match="cannot be served"), telemetry(None, 1, address):
            pass


def test_a_file_that_cannot_be_written_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"), telemetry(str(tmp_path / "no" / "file"), 1, None):
        pass


def test_listeners_get_readings_also_in_quiet_mode() -> None:
    received: list[Reading] = []
    with progress_display("annotate", "tokens", 10, quiet=True, listeners=[received.append]) as display:
        display.update(5, 0.8)
        display.update(10)
    assert [(one.done, one.forward_share) for one in received] == [(5, 0.8), (10, 0.8)]
