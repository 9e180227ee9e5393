"""Control tokens: those that a chat template writes are parsed, those that a document's text spells are not.

Before rendering, `shield` breaks every control token that a message spells with a character that no message has. In the
rendered text, an unbroken control token is therefore the template's own. It is replaced by an alias, a token that only
the encoder below knows, and the encoder reads all control tokens as plain letters.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from logitcask.schemas.errors import TokenizerError
from logitcask.teacher.text.chat_template import Message

# The supplementary private use areas: no text needs them, and no normalizer or template filter changes them.
_PRIVATE_USE = (*range(0x10FFFD, 0x100000, -1), *range(0xFFFFD, 0xF0000, -1))


def looks_like_control(piece: str) -> bool:
    """Whether an added token is one of control by its spelling alone: some vocabularies do not mark `<|user|>`."""
    return (piece.startswith("<|") and piece.endswith("|>")) or (piece.startswith("<｜") and piece.endswith("｜>"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Shielded:
    """Messages that spell no control token.

    Attributes:
        messages: The messages, each control token in their text broken by `mark`.
        mark: A character that the original messages do not have.
    """

    messages: list[dict[str, Any]]
    mark: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """Tokens of a text.

    Attributes:
        ids: Token ids, [L].
        starts, stops: The characters of each token, int64 [L].
    """

    ids: list[int]
    starts: np.ndarray
    stops: np.ndarray


class ControlTokens:
    """The control tokens of a tokenizer.

    Args:
        backend: A `tokenizers.Tokenizer`; it is not changed.
        pieces: Control tokens by id; if there are none, whatever spells a token is that token.
    """

    def __init__(self, backend: Any, pieces: Mapping[int, str]) -> None:
        self._settings = json.loads(backend.to_str())
        # It only trims spaces from the characters of tokens, or adds tokens that no caller asks for.
        self._settings["post_processor"] = None
        for added in self._settings["added_tokens"]:
            added["special"] = added["special"] or added["id"] in pieces
        self._pieces = dict(pieces)
        longest_first = sorted(pieces.values(), key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._numbers = {piece: number for number, piece in enumerate(pieces.values())}
        self._beginnings = {piece[:length] for piece in pieces.values() for length in range(1, len(piece))}
        self._longest = max(map(len, pieces.values()), default=0)
        self._encoders: dict[str, _Encoder] = {}

    def shield(self, messages: Sequence[Message]) -> Shielded:
        """The messages with every control token in their text, names and arguments broken."""
        mark = _absent_character(json.dumps(messages, ensure_ascii=False, default=str))

        def broken(value: Any, *, is_role: bool = False) -> Any:
            if isinstance(value, str):
                whole = self._spelled.sub(lambda found: f"{found[0][0]}{mark}{found[0][1:]}", value)
                # A template builds control tokens from roles: '<|' + role + '|>'.
                return whole if is_role else self._without_beginning(whole, mark)
            if isinstance(value, Mapping):
                return {broken(key): broken(one) for key, one in value.items()}
            return [broken(one) for one in value] if isinstance(value, list | tuple) else value

        return Shielded(
            messages=[
                {key: broken(one, is_role=key == "role") for key, one in message.items()} for message in messages
            ],
            mark=mark,
        )

    def _without_beginning(self, text: str, mark: str) -> str:
        """The text, broken where it ends with the beginning of a control token, which another text could complete."""
        for length in range(1, min(self._longest, len(text) + 1)):
            if text[-length:] in self._beginnings:
                return (
                    self._without_beginning(text[:-length], mark)
                    + text[-length]
                    + mark
                    + text[len(text) - length + 1 :]
                )
        return text

    def encode(self, text: str) -> list[int]:
        """Ids of a plain text; control tokens are letters."""
        return self._encoder(_absent_character(text)).backend.encode(text, add_special_tokens=False).ids

    def encode_rendered(self, text: str, mark: str) -> Encoded:
        """Tokens of the text that a template made of shielded messages, without the marks.

        Args:
            text: The rendered text.
            mark: Of the shielded messages.
        """
        lead = _absent_character(text)
        pieces, starts, originals = [], [], []
        length, end = 0, 0
        # A character before a mark is a letter, whatever it begins or is.
        for found in re.finditer(f".?{mark}|{self._spelled.pattern}", text, re.DOTALL):
            is_letter = found[0].endswith(mark)
            cut = found.end() - len(mark) if is_letter else found.start()
            kept, alias = text[end:cut], "" if is_letter else _alias(lead, self._numbers[found[0]])
            pieces += [kept, alias]
            starts += [length, length + len(kept)]
            originals += [end, cut]
            length, end = length + len(kept) + len(alias), found.end()
        encoder = self._encoder(lead)
        encoding = encoder.backend.encode("".join([*pieces, text[end:]]), add_special_tokens=False)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        at = np.searchsorted([*starts, length], offsets, side="right") - 1
        offsets += np.array([*originals, end])[at] - np.array([*starts, length])[at]
        known: Mapping[int, int] = encoder.aliases
        ids: list[int] = [known.get(int(one), int(one)) for one in encoding.ids]
        return Encoded(ids=ids, starts=offsets[:, 0], stops=offsets[:, 1])

    def _encoder(self, lead: str) -> "_Encoder":
        """A tokenizer that reads control tokens as letters, and has an alias of each."""
        if lead not in self._encoders:
            # Only the last one is kept: texts with many private-use characters must not fill the memory.
            self._encoders = {lead: self._new_encoder(lead)}
        return self._encoders[lead]

    def _new_encoder(self, lead: str) -> "_Encoder":
        from tokenizers import AddedToken, Tokenizer

        backend = Tokenizer.from_str(json.dumps(self._settings))
        # Without any to tell apart, all are parsed as they are spelled.
        backend.encode_special_tokens = bool(self._pieces)
        num_real = max(backend.get_vocab().values()) + 1
        flags = {
            added["id"]: {name: added[name] for name in ("single_word", "lstrip", "rstrip")}
            for added in self._settings["added_tokens"]
        }
        aliases = {_alias(lead, number): one for number, one in enumerate(self._pieces)}
        backend.add_tokens(
            [AddedToken(alias, normalized=False, special=False, **flags[one]) for alias, one in aliases.items()]
        )
        spelled = backend.get_vocab()
        ids = {spelled[alias]: one for alias, one in aliases.items()}
        if min(ids, default=num_real) < num_real:
            raise TokenizerError("the tokenizer's ids have gaps, so control tokens in text cannot be told apart")
        return _Encoder(backend=backend, aliases=ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Encoder:
    """A `tokenizers.Tokenizer`, and the control tokens by the ids of their aliases."""

    backend: Any
    aliases: dict[int, int]


def _alias(lead: str, number: int) -> str:
    return f"{lead}{number}{lead}"


def _absent_character(text: str) -> str:
    """The first private-use character that a text does not have.

    Raises:
        TokenizerError: It has them all.
    """
    present = set(text)
    absent = next((character for character in map(chr, _PRIVATE_USE) if character not in present), None)
    if absent is None:
        raise TokenizerError("the text has every private-use character, so its control tokens cannot be told apart")
    return absent
