"""The bytes of each token id, from the spelling that a vocabulary uses."""

import re
from collections.abc import Mapping

from logitcask.teacher.text.tokenizers import PieceSpelling, Tokenizer

_SENTENCEPIECE_SPACE = "▁"
_SENTENCEPIECE_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def piece_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Bytes of every id below the vocabulary's size; control tokens are spelled out, unused ids are empty."""
    spelling = tokenizer.spelling
    return [_bytes(tokenizer.piece(i), spelling) for i in range(tokenizer.info.vocab_size)]


def _bytes(piece: str | None, spelling: PieceSpelling) -> bytes:
    if piece is None:
        return b""
    if spelling == "byte-level" and all(character in _BYTE_OF_CHARACTER for character in piece):
        return bytes(_BYTE_OF_CHARACTER[character] for character in piece)
    if spelling == "sentencepiece":
        byte = _SENTENCEPIECE_BYTE.fullmatch(piece)
        return bytes.fromhex(byte[1]) if byte else piece.replace(_SENTENCEPIECE_SPACE, " ").encode()
    return piece.encode("utf-8", "replace")


def _byte_alphabet() -> Mapping[str, int]:
    """GPT-2's alphabet of bytes: printable bytes map to themselves, the others to U+0100 and up, in order."""
    printing = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_alphabet()
