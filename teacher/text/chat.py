"""Which characters of a rendered conversation the assistant wrote, for chat templates that do not mark them.

The assistant's turn i is what rendering messages[: i + 1] adds to rendering messages[:i] with a generation prompt. This
holds only if each rendering begins with the previous one, which is checked. Some templates rewrite earlier turns, for
example to drop their reasoning; then no single text contains the context of every turn.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from logitcask.schemas.errors import TokenizerError

Message = Mapping[str, Any]
Render = Callable[[Sequence[Message], bool], str]
Span = tuple[int, int]


def assistant_spans(render: Render, messages: Sequence[Message]) -> tuple[str, list[Span]]:
    """The rendered conversation, and the characters start:stop of each of the assistant's turns.

    Args:
        render: From messages, and whether to add a generation prompt, to text.
        messages: Mappings with "role" and "content".

    Raises:
        TokenizerError: The template cannot render the messages, or a rendering does not begin with the previous one.
    """
    _check(messages)
    text = _rendered(render, messages, len(messages), False)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _rendered(render, messages, index, True)
        after = _rendered(render, messages, index + 1, False)
        if not (after.startswith(before) and text.startswith(after)):
            raise TokenizerError(
                f"message {index}: the chat template renders the messages before it differently when they stand alone, "
                "so the assistant's text has more than one context; use a template that only appends"
            )
        spans.append((len(before), len(after)))
    return text, spans


def mark_spans(
    text: str,
    ids: Sequence[int],
    offsets: Sequence[Span],
    spans: Sequence[Span],
    control_ids: Set[int],
) -> np.ndarray:
    """Which tokens the assistant wrote, bool [L]: those that begin inside a span.

    Args:
        text: The rendered conversation.
        ids: Its tokens, [L].
        offsets: Characters start:stop of each token.
        spans: The assistant's turns.
        control_ids: Ids of control tokens. White space after a turn's last control token is the template's.
    """
    starts = np.array([start for start, _ in offsets], dtype=np.int64)
    stops = np.array([stop for _, stop in offsets], dtype=np.int64)
    is_assistant = np.zeros(len(ids), dtype=bool)
    for start, stop in spans:
        # A token that begins before the span belongs to the prompt; an empty one does not count.
        inside = np.flatnonzero((starts >= start) & (starts < stop) & (stops > starts))
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


def _rendered(render: Render, messages: Sequence[Message], count: int, add_generation_prompt: bool) -> str:
    from jinja2 import TemplateError

    try:
        return render(messages[:count], add_generation_prompt)
    except (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError) as e:
        raise TokenizerError(f"the chat template cannot render the first {count} messages: {e}") from e
