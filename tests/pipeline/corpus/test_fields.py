"""Fields of records: chat messages and ids."""

from pathlib import Path

import pytest
from corpus_reading import line, read_one

from logitcask.pipeline.corpus.documents import RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields

CHAT = Fields(chat="messages")


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        "text",
        ["text"],
        [{"role": "user"}],
        [{"role": "assistant", "content": None}],
        [{"role": "user", "content": "no answer"}],
        [{"role": "assistant", "content": "\ud800"}],
    ],
)
def test_malformed_chat_messages_are_rejected(tmp_path: Path, messages: object) -> None:
    found = read_one(tmp_path / "a.jsonl", line(messages=messages), CHAT)
    assert isinstance(found, Rejected)
    assert found.reason == "malformed_chat"


def test_chat_messages_are_kept_unchanged(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho", "name": "x"}]
    found = read_one(tmp_path / "a.jsonl", line(messages=messages), CHAT)
    assert isinstance(found, RawDocument)
    assert found.messages == tuple(messages)


def test_an_unusable_id_is_replaced_by_the_place(tmp_path: Path) -> None:
    for bad in (True, "", None, "a\nb", "x" * 1000, 1.5):
        found = read_one(tmp_path / "a.jsonl", line(text="x", id=bad))
        assert isinstance(found, RawDocument)
        assert found.id == "a.jsonl#1"
