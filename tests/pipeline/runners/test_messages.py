"""Messages on the terminal: those of this project, without credentials and control characters."""

import logging

import pytest

from logitcask.pipeline.runners.messages import log_to_stderr


def test_warnings_are_shown_without_credentials_or_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    logging.getLogger("logitcask.pipeline").warning("GET https://user:hush@host/\x1b[2J")
    logging.getLogger("some.library").warning("not shown")
    shown = capsys.readouterr()
    assert shown.err == "logitcask: GET https://host/\\x1b[2J\n"
    assert not shown.out
