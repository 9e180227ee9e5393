"""Digests of bytes and fingerprints of settings; they identify shards, tokenizers and teachers."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def digest(data: bytes) -> str:
    """SHA-256 of `data`, as "sha256:<64 hex digits>"."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits; memory holds a small buffer."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """The canonical JSON text of a value: sorted keys, no spaces, no NaN. Equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """128 bits of BLAKE2b over the canonical JSON of `value`, as 32 hex digits."""
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=16).hexdigest()


def vocabulary_fingerprint(pieces: Mapping[str, int], special_ids: Mapping[str, int | None]) -> str:
    """Fingerprint of what ids mean: equal for two tokenizers exactly if every id has the same piece.

    Args:
        pieces: Piece to id, added tokens included.
        special_ids: Role ("bos", "eos") to id, or None where the tokenizer does not define it.
    """
    by_id = sorted((token_id, piece) for piece, token_id in pieces.items())
    return fingerprint({"pieces": by_id, "special_ids": dict(special_ids)})
