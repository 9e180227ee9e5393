"""The contents of a corpus file: documents, and rejected documents with a reason."""

import base64
from dataclasses import dataclass
from typing import Any

# Larger raw contents are not copied into `rejected/`: source, row and offset still locate them.
MAX_RAW_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a document is in the corpus.

    Attributes:
        file_name: The file's name relative to the corpus; the basis of ids for documents without an id.
        url: The file's URL without credentials.
        row: Row in the file, counted from 1; None where a file is read in several byte ranges, so that the number of
            preceding rows is not known.
        offset_bytes: First byte in the (decompressed) file; None for formats without lines.
    """

    file_name: str
    url: str
    row: int | None
    offset_bytes: int | None

    @property
    def source(self) -> str:
        """URL and row, or URL and offset if the row is not known."""
        return self.url + self._suffix()

    @property
    def document_id(self) -> str:
        """The id of a document without its own id; unique in the corpus."""
        return self.file_name + self._suffix()

    def _suffix(self) -> str:
        return f"@{self.offset_bytes}" if self.row is None else f"#{self.row}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RawDocument:
    """A document as read, before tokenization: either text or chat messages.

    Attributes:
        id: The record's own id, or `place.document_id`.
        place: Where it is.
        text: Its text; None for a chat.
        messages: Its chat messages, each a dict with at least "role" and "content"; None for plain text.
        raw: The bytes it was read from, in case it is rejected later.
    """

    id: str
    place: Place
    text: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    raw: bytes = b""

    def reject(self, reason: str, detail: str) -> "Rejected":
        """The same document as a rejection by a later step."""
        return Rejected(place=self.place, reason=reason, detail=detail, raw=self.raw)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """Part of the corpus that is not a valid document.

    Attributes:
        place: Where it is.
        reason: One of a small set of words; counted in the records.
        detail: What exactly was found.
        raw: Its bytes, if they were kept.
    """

    place: Place
    reason: str
    detail: str
    raw: bytes | None = None

    def to_json(self) -> dict[str, Any]:
        """A line of `rejected/*.jsonl`. `raw` can be repaired and annotated; bytes that are not UTF-8 are in base64."""
        line = {
            "source": self.place.source,
            "row": self.place.row,
            "offset_bytes": self.place.offset_bytes,
            "reason": self.reason,
            "detail": self.detail,
            "raw": None,
        }
        if self.raw is None or len(self.raw) > MAX_RAW_BYTES:
            return line
        try:
            return line | {"raw": self.raw.decode()}
        except UnicodeDecodeError:
            return line | {"raw_base64": base64.b64encode(self.raw).decode()}
