import io
import json
import logging
import subprocess
import sys
import unicodedata

import pytest

from logitcask.schemas.terminal.guard import GuardedStream, guarded_output, print_json, styled

HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u202e\u2066\u200f\r\x08"


def controls(text: str) -> set[str]:
    """The control characters, and the marks of direction, in a text."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\t"}


def test_every_writer_is_guarded(capsys):
    with guarded_output():
        print(HOSTILE)
        sys.stdout.writelines([HOSTILE])
        print(HOSTILE, file=sys.stderr)
        handler = logging.StreamHandler()
        handler.emit(logging.makeLogRecord({"msg": HOSTILE}))
        sys.excepthook(ValueError, ValueError(HOSTILE), None)
    shown = capsys.readouterr()
    assert shown.out.count("\\x1b[2J") == 2
    assert shown.err.count("\\x1b[2J") >= 3
    assert not controls(shown.out + shown.err)


def test_stderr_hides_credentials_and_stdout_shows_results(capsys):
    with guarded_output():
        for stream in (sys.stdout, sys.stderr):
            print("GET https://user:hush@host/x", file=stream)
    shown = capsys.readouterr()
    assert shown.out == "GET https://user:hush@host/x\n"
    assert shown.err == "GET https://host/x\n"


def test_the_streams_come_back_and_a_second_guard_changes_nothing():
    before = sys.stdout
    with guarded_output():
        guarded = sys.stdout
        with guarded_output():
            assert sys.stdout is guarded
    assert sys.stdout is before


def test_colors_pass_only_from_trusted_text(capsys):
    with guarded_output():
        with styled(trusted=True):
            print("\x1b[1;31mred\x1b[0m \x1b]0;title\x07")
        with styled(trusted=False):
            print("\x1b[31mred")
        print("\x1b[31mred")
    assert capsys.readouterr().out == "\x1b[1;31mred\x1b[0m \\x1b]0;title\\x07\n\\x1b[31mred\n\\x1b[31mred\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_is_valid_and_free_of_control_characters_in_any_encoding(encoding, monkeypatch):
    value = {"name": HOSTILE + "é漢😀\U000e0041\ud800\xa0"}
    raw = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", raw)
    with guarded_output():
        print_json(value)
    raw.seek(0)
    shown = raw.read()
    assert not controls(shown)
    assert json.loads(shown) == value


def test_what_the_encoding_lacks_is_escaped():
    raw = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    raw.reconfigure(errors="backslashreplace")
    GuardedStream(raw, str).write("5 – 6")
    raw.seek(0)
    assert raw.read() == "5 \\u2013 6"


def test_a_closed_stdout_and_an_ascii_terminal_give_no_traceback(small_dataset):
    program = f"{sys.executable} -m logitcask inspect {small_dataset.url}"
    for command, status in [
        (f"PYTHONIOENCODING=ascii LC_ALL=C {program}", 0),
        (f"{program} >&-", 0),
        (f"{program} | true; exit ${{PIPESTATUS[0]}}", 1),
    ]:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        assert done.returncode == status, command
