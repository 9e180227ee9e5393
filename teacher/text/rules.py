"""How text becomes tokens, beyond the tokenizer's own files. Imports nothing heavy."""

from dataclasses import dataclass
from datetime import date

# Incremented whenever the same tokenizer and text would give other tokens. A dataset keeps the rules it was begun with.
# 1: control tokens that a chat's messages spell are parsed; spaces can miss from the assistant's marks; only a single
#    chat template is known, and it reads the clock.
TOKEN_RULES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRules:
    """How text becomes tokens.

    Attributes:
        version: `TOKEN_RULES` when the dataset was begun.
        parse_special: Whether control tokens that a text spells become control tokens.
        today: The day that a chat template is told; None where it does not ask.
    """

    version: int = TOKEN_RULES
    parse_special: bool = False
    today: date | None = None
