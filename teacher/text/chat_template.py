"""A chat template: where a model's files keep it, and how it renders, always to the same text.

`transformers` compiles the templates, so that every template it can render is accepted. Two things differ from its
`apply_chat_template`: `strftime_now` answers with a fixed date, because the same corpus must give the same tokens on
another day; and a template that chooses at random is refused.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from logitcask.schemas.errors import TokenizerError
from logitcask.teacher.text.bounded_process import BoundedProcess, BoundExceededError, CallFailedError

Message = Mapping[str, Any]
Span = tuple[int, int]

# Today, for a template that asks and a caller that does not say: Llama's templates use this date too where they have
# no clock.
DEFAULT_DATE = date(2024, 7, 26)
# Where a processor's files keep the template of a model whose tokenizer has none.
_PROCESSOR_FILES = ("chat_template.json", "processor_config.json")
# The names by which templates ask for a message's reasoning; `transformers` offers it under all of them.
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")

# What a template may use for one rendering: it is a program, and may be a hostile one. Those of real models take
# a millisecond.
_MAX_SECONDS, _MAX_MEMORY_BYTES, _MAX_LENGTH = 10.0, 1_000_000_000, 20_000_000


# A template that renders it can be checked before the corpus is read.
_PROBE = ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"})


class UnstableTemplateError(TokenizerError):
    """The template does not always render the same text."""


class _CannotRenderError(TokenizerError):
    """The template raised an error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """A rendered conversation.

    Attributes:
        text: What the model reads.
        generated: Characters start:stop of the `{% generation %}` blocks, by which a template marks what the model
            writes; None if the template has no such block.
    """

    text: str
    generated: tuple[Span, ...] | None


def find_chat_template(stated: str | dict[str, str] | None, directory: Path | None) -> str | None:
    """The template that `transformers` would use for a conversation without tools, or None if there is none.

    Args:
        stated: What the loaded tokenizer has: one template, or several by name.
        directory: The model's files, for a template that only its processor has.

    Raises:
        TokenizerError: There are several templates, and none is the default.
    """
    if isinstance(stated, str):
        return stated
    if stated:
        template = stated.get("default") or (next(iter(stated.values())) if len(stated) == 1 else None)
        if template is None:
            raise TokenizerError(
                f"the tokenizer has the chat templates {', '.join(sorted(stated))}, but none is named 'default'; "
                "rename the one to use"
            )
        return template
    if directory is None:
        return None
    for name in _PROCESSOR_FILES:
        try:
            found = json.loads((directory / name).read_text(encoding="utf-8")).get("chat_template")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(found, str):
            return found
    return None


class ChatTemplate:
    """A compiled template.

    Args:
        text: Jinja source.
        variables: The tokenizer's tokens by name, such as `bos_token`.
        today: What `strftime_now` answers; None asks the clock, as datasets did that were begun before dates were
            recorded.

    Raises:
        UnstableTemplateError: The template renders at random.
        TokenizerError: It is not valid.
    """

    def __init__(self, text: str, variables: Mapping[str, Any], today: date | None = DEFAULT_DATE) -> None:
        # Not `apply_chat_template`: it replaces a function such as `strftime_now` by a string.
        from transformers.utils.chat_template_utils import (
            _compile_jinja_template,  # pyright: ignore[reportPrivateUsage]
        )

        try:
            syntax = _compile_jinja_template("").environment.parse(text)
        except Exception as e:
            raise TokenizerError(f"the chat template is not valid: {e}") from e
        self._text, self._compile = text, _compile_jinja_template
        self._compiled: Any = None
        self._variables = dict(variables)
        if today is not None:
            self._variables["strftime_now"] = lambda format: datetime.combine(today, time()).strftime(format)
        self._marks_generation = _has_generation_blocks(syntax)
        self.asks_for_date = "strftime_now" in _names(syntax)
        if _is_random(syntax):
            raise UnstableTemplateError(
                "the chat template renders at random (`random` or `lipsum`), so the same corpus would get other tokens "
                "each time; use a template that always renders the same text"
            )
        self._child = BoundedProcess(self._in_child, cpu_seconds=_MAX_SECONDS, memory_bytes=_MAX_MEMORY_BYTES)
        try:
            # Not compiled in this process: the compiler computes what is constant.
            self._child.call(None, False)
        except (BoundExceededError, CallFailedError) as e:
            raise TokenizerError(f"the chat template is not valid: {e}") from e
        with suppress(_CannotRenderError):
            self.render(_PROBE, add_generation_prompt=True)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> Rendered:
        """The text of a conversation.

        Raises:
            UnstableTemplateError: The template renders it differently each time.
            TokenizerError: The template cannot render it.
        """
        first = self._render(messages, add_generation_prompt)
        if self._render(messages, add_generation_prompt) != first:
            raise UnstableTemplateError(
                "the chat template renders the same conversation differently each time; use one that does not"
            )
        return first

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> Rendered:
        try:
            text, generated = self._child.call([_as_rendered(message) for message in messages], add_generation_prompt)
        except (BoundExceededError, CallFailedError) as e:
            raise _CannotRenderError(f"the chat template cannot render {len(messages)} messages: {e}") from e
        return Rendered(text=text, generated=generated)

    def _in_child(
        self, messages: list[dict[str, Any]] | None, add_generation_prompt: bool
    ) -> tuple[str, tuple[Span, ...] | None]:
        """The text and the generated spans; compiles the template at the first call, which may have no messages."""
        if self._compiled is None:
            self._compiled = self._compile(self._text)
        if messages is None:
            return "", None
        inputs = {
            **self._variables,
            "messages": messages,
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        if not self._marks_generation:
            return _checked(self._compiled.render(**inputs)), None
        blocks: list[str] = []
        generated: list[Span] = []
        with self._compiled.environment.activate_tracker(blocks, generated):
            # The tracker reads the blocks so far to know where it is.
            for block in self._compiled.generate(**inputs):
                blocks.append(block)  # noqa: PERF402
        return _checked("".join(blocks)), tuple(generated)


def _checked(text: str) -> str:
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"it renders {len(text):,} characters; at most {_MAX_LENGTH:,} are allowed")
    return text


def _as_rendered(message: Message) -> dict[str, Any]:
    """A message as `transformers` gives it to templates: without null values, its reasoning under every name."""
    stated = {key: value for key, value in message.items() if value is not None}
    reasoning = next((stated[key] for key in REASONING_KEYS if key in stated), None)
    if reasoning is None:
        return stated
    return {"thinking": reasoning, **stated, "reasoning_content": reasoning}


def _is_random(syntax: Any) -> bool:
    """Whether a template uses what Jinja offers of chance."""
    from jinja2 import nodes

    return "lipsum" in _names(syntax) or any(one.name == "random" for one in syntax.find_all(nodes.Filter))


def _has_generation_blocks(syntax: Any) -> bool:
    from jinja2 import nodes

    return any(one.name == "_generation_support" for one in syntax.find_all(nodes.ExtensionAttribute))


def _names(syntax: Any) -> set[str]:
    """The names that a template's source uses."""
    from jinja2 import nodes

    return {one.name for one in syntax.find_all(nodes.Name)}
