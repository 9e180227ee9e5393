"""The meaning of ids as a file of the dataset, so that its windows can be read without the tokenizer's own code.

`OUT/tokenizer/pieces.json` lists the bytes of every id; the text of a window is the bytes of its ids, one after the
other, as UTF-8. That is exact for byte-level and SentencePiece vocabularies, except for a space that SentencePiece
inserts before the first word.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from logitcask.schemas import storage
from logitcask.schemas.checked_json import Label, TokenId, convert, require_version
from logitcask.schemas.errors import FingerprintMismatchError, UsageError
from logitcask.schemas.seals import read_sealed, sealed

# Since 2, the file has a seal (`schemas.seals`).
VOCABULARY_VERSION = 2
VOCABULARY_PATH = "tokenizer/pieces.json"
_ADVICE = "remove the file and run the same `logitcask annotate` again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """Bytes by id; ids without a meaning have none.

    Attributes:
        pieces: Bytes of each id.
    """

    pieces: tuple[bytes, ...]

    def piece(self, token_id: int) -> bytes:
        """Bytes of one id, also of one that the tokenizer does not know (teachers may have more ids)."""
        return self.pieces[token_id] if 0 <= token_id < len(self.pieces) else b""

    def join(self, ids: Iterable[int]) -> bytes:
        """Bytes of ids one after the other: UTF-8, except for characters that a window's borders cut."""
        return b"".join(map(self.piece, ids))

    def text(self, ids: Iterable[int]) -> str:
        """`join` as text; invalid UTF-8 becomes U+FFFD."""
        return self.join(ids).decode(errors="replace")


def write_vocabulary(out: str, pieces: Sequence[bytes], vocabulary_fingerprint: str) -> bool:
    """Creates the file; False if it exists."""
    texts: list[str | None] = []
    undecodable: dict[str, str] = {}
    for token_id, piece in enumerate(pieces):
        try:
            texts.append(piece.decode())
        except UnicodeDecodeError:
            texts.append(None)
            undecodable[str(token_id)] = piece.hex()
    value = {
        "vocabulary_version": VOCABULARY_VERSION,
        "vocabulary_fingerprint": vocabulary_fingerprint,
        "pieces": texts,
        "bytes": undecodable,
    }
    return storage.create(_url(out), sealed(value, indent=None))


def has_vocabulary(out: str) -> bool:
    return storage.exists(_url(out))


def read_vocabulary(out: str, vocabulary_fingerprint: str | None = None) -> Vocabulary:
    """What the ids of a dataset mean.

    Args:
        out: The dataset's directory.
        vocabulary_fingerprint: As its snapshot states it, to be compared.

    Raises:
        UsageError: The dataset does not say: an older release made it.
        FingerprintMismatchError: The file is of another vocabulary.
        UnknownFormatVersionError: Another version wrote it.
    """
    try:
        file = read_sealed(
            _url(out),
            _VocabularyFile.from_json,
            version_key="vocabulary_version",
            what="the pieces of a vocabulary",
            advice=_ADVICE,
        )
    except FileNotFoundError as error:
        raise UsageError(
            f"{storage.redact(out)}: no {VOCABULARY_PATH}, so ids cannot be shown as text; run the same `logitcask "
            "annotate` again: it adds the file and annotates nothing twice"
        ) from error
    if vocabulary_fingerprint is not None and file.vocabulary_fingerprint != vocabulary_fingerprint:
        raise FingerprintMismatchError(
            f"{storage.redact(_url(out))}: of the vocabulary {file.vocabulary_fingerprint}, the dataset's is "
            f"{vocabulary_fingerprint}; {_ADVICE}"
        )
    undecodable = {token_id: bytes.fromhex(digits) for token_id, digits in file.bytes.items()}
    pieces = enumerate(file.pieces)
    return Vocabulary(
        pieces=tuple(undecodable.get(token_id, b"") if text is None else text.encode() for token_id, text in pieces)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _VocabularyFile:
    """The file as it is stored; `bytes` has the pieces that are null, by id, in hexadecimal."""

    vocabulary_fingerprint: Label
    pieces: list[str | None]
    bytes: dict[TokenId, Annotated[str, Meta(pattern="^([0-9a-f]{2})*$")]]

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "_VocabularyFile":
        require_version(value, "vocabulary_version", VOCABULARY_VERSION)
        return convert(value, cls)


def _url(out: str) -> str:
    return storage.inside(out, VOCABULARY_PATH)
