"""Conversations as rendered text, and which characters of it the assistant wrote.

Message i of the assistant is what rendering messages[: i + 1] adds to rendering messages[:i] with a generation prompt.
If each rendering begins with the previous one, a single text holds every answer in the context in which the model gives
it. Some templates rewrite earlier turns, for example to drop their reasoning. Then each answer needs a text of its own:
the conversation up to it, as the model reads it when it answers.

A template can mark what the assistant writes by `{% generation %}` blocks; these are then the answers.
"""

import os.path
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from logitcask.schemas.errors import TokenizerError
from logitcask.teacher.text.chat_template import REASONING_KEYS, Message, Rendered, Span

# From messages, and whether to add a generation prompt.
Render = Callable[[Sequence[Message], bool], Rendered]

_REASONING, _END_OF_REASONING = "<think>", "</think>"
# Takes the place of an answer's text where only what precedes the text is wanted.
_PLACEHOLDER = "\U000f0000"


class RewrittenChatError(TokenizerError):
    """The template renders earlier messages differently once more follow, so no single text has all answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatText:
    """A rendered conversation.

    Attributes:
        text: What the model reads.
        spans: Characters start:stop of the assistant's turns that are targets.
    """

    text: str
    spans: tuple[Span, ...]


def whole_chat(render: Render, messages: Sequence[Message], *, is_complete: bool = True) -> ChatText:
    """One text with all of the assistant's turns.

    Args:
        render: The chat template.
        messages: Mappings with "role" and other keys.
        is_complete: Whether to check that the template leaves nothing out.

    Raises:
        RewrittenChatError: A rendering does not begin with the previous one, or drops the reasoning of an answer.
        TokenizerError: The template cannot render the messages, or leaves out part of them.
    """
    _check(messages)
    whole = render(messages, False)
    spans = []
    for index in _answers(messages):
        before = "" if whole.generated is not None else render(messages[:index], True).text
        after = render(messages[: index + 1], False).text
        if not (after.startswith(before) and whole.text.startswith(after)):
            raise RewrittenChatError(
                f"message {index}: the chat template renders the messages before it differently when they stand alone, "
                "so the assistant's text has more than one context; use --chat-split auto, or a template that only "
                "appends"
            )
        if is_complete and _drops_reasoning(render, messages[: index + 1]):
            raise RewrittenChatError(f"message {index}: the chat template drops its reasoning; use --chat-split auto")
        spans.append((len(before), len(after)))
    if is_complete:
        _check_nothing_is_left_out(render, messages)
    return _targets(whole, spans)


def chat_of_each_answer(render: Render, messages: Sequence[Message]) -> Iterator[ChatText]:
    """For each of the assistant's messages, the conversation up to it, with only this answer as target.

    Args:
        render: The chat template.
        messages: Mappings with "role" and other keys.

    Raises:
        TokenizerError: The template cannot render the messages, or leaves out part of them.
    """
    _check(messages)
    _check_nothing_is_left_out(render, messages)
    for index in _answers(messages):
        until = messages[: index + 1]
        after = render(until, False)
        if after.generated is not None:
            context = _common(render(messages[:index], False).text, after.text) if index else ""
            yield _targets(after, [(len(context), len(after.text))])
            continue
        prompt = render(messages[:index], True).text
        if _drops_reasoning(render, until):
            text = prompt + _answer_with_reasoning(render, until, prompt)
            yield ChatText(text=text, spans=((len(prompt), len(text)),))
            continue
        start = len(prompt) if after.text.startswith(prompt) else _start_of_answer(render, until, prompt, after.text)
        yield _targets(after, [(start, len(after.text))])


def mark_spans(
    text: str,
    ids: Sequence[int],
    starts: np.ndarray,
    stops: np.ndarray,
    spans: Sequence[Span],
    control_ids: Set[int],
) -> np.ndarray:
    """Which tokens the assistant wrote, bool [L]: those that begin inside a span.

    Args:
        text: The rendered text.
        ids: Its tokens, [L].
        starts, stops: Characters of each token, [L]. A token without characters belongs to the character it precedes.
        spans: The assistant's turns.
        control_ids: Ids of control tokens. White space after a turn's last control token is the template's.
    """
    is_assistant = np.zeros(len(ids), dtype=bool)
    for start, stop in spans:
        # A token that begins before the span belongs to the prompt.
        inside = np.flatnonzero((starts >= start) & (starts < stop))
        controls = [index for index in inside.tolist() if ids[index] in control_ids]
        if controls and not text[stops[controls[-1]] : stop].strip():
            inside = inside[inside <= controls[-1]]
        is_assistant[inside] = True
    return is_assistant


def _check(messages: Sequence[Message]) -> None:
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise TokenizerError(f"message {index} has no role; each needs role and content, found {message!r:.80}")
    if not messages:
        raise TokenizerError("the conversation has no messages")


def _answers(messages: Sequence[Message]) -> Iterator[int]:
    return (index for index, message in enumerate(messages) if message["role"] == "assistant")


def _targets(rendered: Rendered, turns: Sequence[Span]) -> ChatText:
    """A text whose targets are the turns, or what the template marks in them."""
    if rendered.generated is None:
        return ChatText(text=rendered.text, spans=tuple(turns))
    first = turns[0][0] if turns else 0
    spans = tuple(span for span in rendered.generated if span[0] >= first)
    if not spans:
        raise TokenizerError("the chat template marks nothing as generated by the assistant")
    return ChatText(text=rendered.text, spans=spans)


def _start_of_answer(render: Render, until: Sequence[Message], prompt: str, after: str) -> int:
    """Where the last message begins, for a template that does not repeat its whole generation prompt before it.

    DeepSeek-R1 opens a block of reasoning in the prompt, but renders an answer without any. The answer then begins
    after what the prompt and an answer of any text have in common.
    """
    header = _common(prompt, _around_content(render, until)[0], after)
    before = _common(prompt, render(until[:-1], False).text) if len(until) > 1 else ""
    if len(header) <= len(before):
        raise TokenizerError(
            f"message {len(until) - 1}: the chat template begins an answer otherwise than its generation prompt does, "
            "so the answer has no context that the model would see"
        )
    return len(header)


def _common(*texts: str) -> str:
    """What all of the texts begin with."""
    return os.path.commonprefix(texts)  # noqa: RUF071 (characters are wanted)


def _around_content(render: Render, until: Sequence[Message]) -> tuple[str, str]:
    """What the template writes before and after the content of the last message."""
    text = render([*until[:-1], {**until[-1], "content": _PLACEHOLDER}], False).text
    before, _, after = text.partition(_PLACEHOLDER)
    return before, after


def _drops_reasoning(render: Render, until: Sequence[Message]) -> bool:
    """Whether the template drops the reasoning that the text of the last message begins with."""
    content = until[-1].get("content")
    if not isinstance(content, str) or _END_OF_REASONING not in content:
        return False
    answer = {**until[-1], "content": content.split(_END_OF_REASONING)[-1]}
    return render([*until[:-1], answer], False).text == render(until, False).text


def _answer_with_reasoning(render: Render, until: Sequence[Message], prompt: str) -> str:
    """The last message as the model writes it after the prompt, for a template that drops the reasoning later."""
    content = until[-1]["content"].lstrip()
    if prompt.rstrip().endswith(_REASONING):
        content = content.removeprefix(_REASONING).lstrip("\n")
    return content + _around_content(render, until)[1]


def _check_nothing_is_left_out(render: Render, messages: Sequence[Message]) -> None:
    """Raises TokenizerError if a template ignores what a message has besides a text.

    What a message has is left out if the conversation up to it renders the same without it, or with another text.
    """
    whole = render(messages, False).text
    for index, message in enumerate(messages):
        for name, less in _with_less(message, whole):
            text = render(messages[: index + 1], False).text
            try:
                ignored = render([*messages[:index], less], False).text == text
            except TokenizerError:
                continue
            content = message.get("content")
            # A list of parts that is written as Python shows it is not read by any model.
            if ignored or (isinstance(content, list) and str(content) in text):
                raise TokenizerError(
                    f"message {index}: the chat template cannot write its {name}, so the model would read another "
                    "conversation; use a template that can, or remove the field"
                )


def _with_less(message: Message, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the template may have ignored when it wrote the text: its name, and the message without it."""
    content = message.get("content")
    if isinstance(content, list):
        yield "content", {**message, "content": [{"type": "text", "text": _PLACEHOLDER}]}
    elif isinstance(content, str) and content.strip() not in text:
        yield "content", {**message, "content": _PLACEHOLDER}
    if message["role"] != "assistant":
        return
    if message.get("tool_calls"):
        yield "tool_calls", {key: one for key, one in message.items() if key != "tool_calls"}
    reasoning = [key for key in REASONING_KEYS if message.get(key)]
    if reasoning:
        yield reasoning[0], {key: one for key, one in message.items() if key not in REASONING_KEYS}
