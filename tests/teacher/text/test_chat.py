"""Which tokens of a conversation are the assistant's, with templates that do not mark them."""

import numpy as np
import pytest

from logitcask.schemas.errors import TokenizerError
from logitcask.teacher.text.chat import ChatText, RewrittenChatError, chat_of_each_answer, mark_spans, whole_chat
from logitcask.teacher.text.chat_template import Rendered

CONVERSATION = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "More"},
    {"role": "assistant", "content": "Bye"},
]


def render(messages, add_generation_prompt):
    text = "".join(f"<{message['role'][0]}>{message['content']}</>\n" for message in messages)
    return Rendered(text=text + ("<a>" if add_generation_prompt else ""), generated=None)


def characters(text: str) -> tuple[list[int], np.ndarray, np.ndarray]:
    """One token per character: ids, starts, stops."""
    return [ord(c) for c in text], np.arange(len(text)), np.arange(len(text)) + 1


def spelled(chat: ChatText) -> list[str]:
    return [chat.text[start:stop] for start, stop in chat.spans]


def test_spans_are_the_replies_with_the_text_that_ends_them():
    assert spelled(whole_chat(render, CONVERSATION)) == ["Hello</>\n", "Bye</>\n"]


def test_white_space_after_a_control_token_is_the_templates():
    chat = whole_chat(render, CONVERSATION)
    marked = mark_spans(chat.text, *characters(chat.text), chat.spans, {ord(">")})
    assert "".join(c for c, mine in zip(chat.text, marked, strict=True) if mine) == "Hello</>Bye</>"


def test_without_control_tokens_the_whole_turn_is_the_assistants():
    chat = whole_chat(render, CONVERSATION)
    marked = mark_spans(chat.text, *characters(chat.text), chat.spans, frozenset())
    assert "".join(c for c, mine in zip(chat.text, marked, strict=True) if mine) == "Hello</>\nBye</>\n"


def test_a_token_that_begins_in_the_prompt_is_the_prompts():
    marked = mark_spans("ab cd", [1, 2, 3], np.array([0, 1, 4]), np.array([1, 4, 5]), [(3, 5)], frozenset())
    np.testing.assert_array_equal(marked, [False, False, True])


def test_a_template_that_rewrites_earlier_turns_is_refused():
    def forgetful(messages, add_generation_prompt):
        return render(messages[-2:], add_generation_prompt)

    with pytest.raises(RewrittenChatError, match="message 1: the chat template renders"):
        whole_chat(forgetful, CONVERSATION)


def test_a_generation_prompt_that_differs_from_the_turn_is_refused():
    def thinking(messages, add_generation_prompt):
        text = render(messages, add_generation_prompt).text + ("<think>" if add_generation_prompt else "")
        return Rendered(text=text, generated=None)

    with pytest.raises(RewrittenChatError, match="message 1"):
        whole_chat(thinking, CONVERSATION)


@pytest.mark.parametrize("messages", [[], ["Hi"], [{"content": "Hi"}]])
def test_messages_that_are_not_a_conversation_are_refused(messages):
    with pytest.raises(TokenizerError, match="message"):
        whole_chat(render, messages)


def test_each_answer_can_have_a_text_of_its_own():
    chats = list(chat_of_each_answer(render, CONVERSATION))
    assert [chat.text for chat in chats] == [render(CONVERSATION[:2], False).text, render(CONVERSATION, False).text]
    assert [spelled(chat) for chat in chats] == [["Hello</>\n"], ["Bye</>\n"]]


def thinking(messages, add_generation_prompt):
    """As DeepSeek-R1 has it: the prompt opens a block of reasoning, which no answer keeps."""
    kept = [{**message, "content": message["content"].split("</think>")[-1]} for message in messages]
    text = render(kept, add_generation_prompt).text
    return Rendered(text=text + ("<think>\n" if add_generation_prompt else ""), generated=None)


def test_an_answer_without_reasoning_begins_after_its_header():
    first, _ = chat_of_each_answer(
        thinking, [*CONVERSATION[:1], {"role": "assistant", "content": "<b>"}, CONVERSATION[3]]
    )
    assert (first.text, spelled(first)) == ("<u>Hi</>\n<a><b></>\n", ["<b></>\n"])


@pytest.mark.parametrize("reasoning", ["<think>\nWhy", "Why"])
def test_dropped_reasoning_is_read_as_the_model_writes_it(reasoning):
    messages = [CONVERSATION[0], {"role": "assistant", "content": f"{reasoning}</think>Yes"}, *CONVERSATION[2:]]
    with pytest.raises(RewrittenChatError):
        whole_chat(thinking, messages)
    first, second = chat_of_each_answer(thinking, messages)
    assert first.text == "<u>Hi</>\n<a><think>\nWhy</think>Yes</>\n"
    assert spelled(first) == ["Why</think>Yes</>\n"]
    assert second.text == "<u>Hi</>\n<a>Yes</>\n<u>More</>\n<a>Bye</>\n"


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ({"tool_calls": [{"function": {"name": "f"}}]}, "tool_calls"),
        ({"reasoning_content": "Why"}, "reasoning_content"),
        ({"content": [{"type": "text", "text": "Hello"}]}, "content"),
    ],
)
def test_what_a_template_cannot_write_is_named(message, name):
    messages = [CONVERSATION[0], {"role": "assistant", "content": "Yes", **message}]
    for texts in (lambda: whole_chat(render, messages), lambda: list(chat_of_each_answer(render, messages))):
        with pytest.raises(TokenizerError, match=f"message 1: the chat template cannot write its {name}"):
            texts()


def test_a_text_that_a_template_ignores_is_named():
    def only_parts(messages, add_generation_prompt):
        parts = [{**m, "content": "".join(p["text"] for p in m["content"] if not isinstance(p, str))} for m in messages]
        return render(parts, add_generation_prompt)

    with pytest.raises(TokenizerError, match="message 0: the chat template cannot write its content"):
        whole_chat(only_parts, CONVERSATION)


def test_marks_of_the_template_are_the_targets():
    def marking(messages, add_generation_prompt):
        text = render(messages, add_generation_prompt).text
        starts = [at for at in range(len(text)) if text.startswith("<a>", at - 3)]
        return Rendered(text=text, generated=tuple((at, text.find("<", at)) for at in starts if "<" in text[at:]))

    assert spelled(whole_chat(marking, CONVERSATION)) == ["Hello", "Bye"]
    assert [spelled(chat) for chat in chat_of_each_answer(marking, CONVERSATION)] == [["Hello"], ["Bye"]]
