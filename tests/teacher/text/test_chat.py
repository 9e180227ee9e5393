"""Which tokens of a conversation are the assistant's, with templates that do not mark them."""

import numpy as np
import pytest

from logitcask.schemas.errors import TokenizerError
from logitcask.teacher.text.chat import assistant_spans, mark_spans

CONVERSATION = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "More"},
    {"role": "assistant", "content": "Bye"},
]


def render(messages, add_generation_prompt):
    text = "".join(f"<{message['role'][0]}>{message['content']}</>\n" for message in messages)
    return text + ("<a>" if add_generation_prompt else "")


def characters(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """One token per character."""
    return [ord(c) for c in text], [(i, i + 1) for i in range(len(text))]


def test_spans_are_the_replies_with_the_text_that_ends_them():
    text, spans = assistant_spans(render, CONVERSATION)
    assert [text[start:stop] for start, stop in spans] == ["Hello</>\n", "Bye</>\n"]


def test_white_space_after_a_control_token_is_the_templates():
    text, spans = assistant_spans(render, CONVERSATION)
    ids, offsets = characters(text)
    marked = mark_spans(text, ids, offsets, spans, {ord(">")})
    assert "".join(c for c, mine in zip(text, marked, strict=True) if mine) == "Hello</>Bye</>"


def test_without_control_tokens_the_whole_turn_is_the_assistants():
    text, spans = assistant_spans(render, CONVERSATION)
    ids, offsets = characters(text)
    marked = mark_spans(text, ids, offsets, spans, frozenset())
    assert "".join(c for c, mine in zip(text, marked, strict=True) if mine) == "Hello</>\nBye</>\n"


def test_a_token_that_begins_in_the_prompt_is_the_prompts():
    marked = mark_spans("ab cd", [1, 2, 3], [(0, 1), (1, 4), (4, 5)], [(3, 5)], frozenset())
    np.testing.assert_array_equal(marked, [False, False, True])


def test_a_template_that_rewrites_earlier_turns_is_refused():
    def forgetful(messages, add_generation_prompt):
        return render(messages[-2:], add_generation_prompt)

    with pytest.raises(TokenizerError, match="message 1: the chat template renders"):
        assistant_spans(forgetful, CONVERSATION)


def test_a_generation_prompt_that_differs_from_the_turn_is_refused():
    def thinking(messages, add_generation_prompt):
        return render(messages, add_generation_prompt) + ("<think>" if add_generation_prompt else "")

    with pytest.raises(TokenizerError, match="message 1"):
        assistant_spans(thinking, CONVERSATION)


@pytest.mark.parametrize("messages", [[], ["Hi"], [{"content": "Hi"}]])
def test_messages_that_are_not_a_conversation_are_refused(messages):
    with pytest.raises(TokenizerError, match="message"):
        assistant_spans(render, messages)


def test_a_conversation_that_the_template_refuses_is_an_error():
    with pytest.raises(TokenizerError, match="cannot render"):
        assistant_spans(render, [{"role": "user"}])
