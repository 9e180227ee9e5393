"""The card in a student's directory."""

import json

import pytest

from logitcask.schemas.errors import UnknownFormatVersionError, UsageError
from logitcask.student.model.student_card import CARD_NAME, StudentCard


@pytest.fixture
def identity(tokenizer_info) -> StudentCard:
    return StudentCard(
        tokenizer=tokenizer_info(), initialisation={"method": "scratch"}, licences={"initial_weights": "mit"}
    )


def test_a_card_reads_back_equal(identity, tmp_path):
    identity.write(tmp_path)
    assert StudentCard.read(tmp_path) == identity


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_without_a_student_the_message_says_how_to_make_one(tmp_path, text):
    if text is not None:
        (tmp_path / CARD_NAME).write_text(text)
    with pytest.raises(UsageError, match="logitcask student init"):
        StudentCard.read(tmp_path)


def test_another_version_is_refused(identity, tmp_path):
    identity.write(tmp_path)
    value = json.loads((tmp_path / CARD_NAME).read_text())
    (tmp_path / CARD_NAME).write_text(json.dumps({**value, "student_version": 99}))
    with pytest.raises(UnknownFormatVersionError, match="version 99"):
        StudentCard.read(tmp_path)
