"""Progress: correct rates and times left, and plain lines without a terminal."""

import pytest

from logitcask.pipeline.execution.progress import Meter, format_duration, progress_display


def test_rate_and_time_left_follow_from_the_samples() -> None:
    meter = Meter(stage="annotate", unit="tokens", total=40_960)
    for second in range(4):
        meter.update(second * 4096, now_seconds=100.0 + second * 10)
    assert meter.describe() == "annotate: 12,288 of 40,960 tokens (30 %), 410 tokens/s, 1 min 10 s left"


def test_a_known_share_of_time_in_the_teacher_is_shown() -> None:
    meter = Meter(stage="annotate", unit="tokens", total=100)
    meter.update(10, now_seconds=0.0)
    meter.update(20, now_seconds=1.0)
    meter.forward_share = 0.934
    assert meter.describe() == "annotate: 20 of 100 tokens (20 %), 10 tokens/s, 93 % in forward, 8 s left"


def test_the_rate_excludes_the_loading_of_the_teacher() -> None:
    meter = Meter(stage="annotate", unit="tokens", total=1000)
    for second in range(100):
        meter.update(0, now_seconds=float(second))
    meter.update(100, now_seconds=100.0)
    meter.update(200, now_seconds=101.0)
    assert meter.rate == pytest.approx(100.0)


def test_the_rate_covers_only_the_last_minute() -> None:
    meter = Meter(stage="annotate", unit="tokens", total=10_000)
    for second in range(1, 200):
        meter.update(second * (1 if second < 100 else 2), now_seconds=float(second))
    assert meter.rate == pytest.approx(2.0, rel=0.01)


def test_no_time_left_is_shown_before_the_first_progress() -> None:
    meter = Meter(stage="tokenize", unit="bytes", total=10)
    meter.update(0, now_seconds=0.0)
    assert meter.describe() == "tokenize: starting on 10 bytes"


@pytest.mark.parametrize(("seconds", "text"), [(6.6, "7 s"), (84, "1 min 24 s"), (3725, "1 h 02 min")])
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_without_a_terminal_progress_is_plain_lines_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logitcask.pipeline.execution.progress._PLAIN_INTERVAL_SECONDS", -1.0)
    with progress_display("annotate", "tokens", 10) as display:
        display.update(5)
    captured = capsys.readouterr()
    assert captured.err == "annotate: 5 of 10 tokens (50 %)\n"
    assert not captured.out
