"""From one record (a parsed JSON line or a Parquet row) to a document: the text or chat field, and the id."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from logitcask.pipeline.corpus.documents import Place, RawDocument, Rejected
from logitcask.teacher.text.chat_template import REASONING_KEYS

# A longer id is most likely text in the wrong field.
_MAX_ID_CHARACTERS = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """The fields that are read from each record.

    Attributes:
        text: Field with the text.
        chat: Field with chat messages; if set, `text` is not read.
        id: Optional field with the document's own id, a string or an integer.
        document_bytes: Longer documents (in UTF-8; for .jsonl the whole line) are rejected.
        rich_messages: Whether the content of a message can be a list of parts, or missing where there are tool calls or
            reasoning. (Datasets that were begun before this was possible reject such chats.)
    """

    text: str = "text"
    chat: str | None = None
    id: str = "id"
    document_bytes: int = 64 << 20
    rich_messages: bool = False

    @property
    def required(self) -> str:
        """The only field that a record must have."""
        return self.chat or self.text


def document_from_record(record: Any, fields: Fields, place: Place, raw: bytes) -> RawDocument | Rejected:
    """The document in a record, or its rejection."""

    def reject(reason: str, detail: str) -> Rejected:
        return Rejected(place=place, reason=reason, detail=detail, raw=raw)

    if not isinstance(record, dict):
        return reject("malformed_json", f"expected an object, found {_type_name(record)}")
    if fields.required not in record:
        return missing_field(record, fields, place, raw)
    value, own_id = record[fields.required], document_id(record.get(fields.id), place)
    if fields.chat is not None:
        fault = _chat_fault(value, fields.rich_messages)
        if fault is not None:
            return reject("malformed_chat", f"{fields.chat!r}: {fault}")
        return RawDocument(id=own_id, place=place, messages=tuple(value), raw=raw)
    if not isinstance(value, str):
        return reject("wrong_type", f"field {fields.text!r}: expected a string, found {_type_name(value)}")
    return document_from_text(value, fields, place, raw, own_id=own_id)


def document_from_text(
    text: str, fields: Fields, place: Place, raw: bytes, own_id: str | None = None
) -> RawDocument | Rejected:
    """A document of plain text, or its rejection."""
    if not text.strip():
        return Rejected(place=place, reason="empty", detail="only white space", raw=raw)
    try:
        num_bytes = len(text.encode())
    except UnicodeEncodeError as e:
        return Rejected(place=place, reason="undecodable", detail=f"an unpaired surrogate: {e}", raw=raw)
    if num_bytes > fields.document_bytes:
        return too_large(fields, place, f"{num_bytes} bytes")
    return RawDocument(id=own_id or place.document_id, place=place, text=text, raw=raw)


def missing_field(names: Iterable[str], fields: Fields, place: Place, raw: bytes | None = None) -> Rejected:
    """The rejection of a record without the required field."""
    detail = f"no field {fields.required!r}; fields: {', '.join(map(repr, names)) or 'none'}"
    return Rejected(place=place, reason="missing_field", detail=detail, raw=raw)


def too_large(fields: Fields, place: Place, found: str) -> Rejected:
    """The rejection of a document above the limit; its raw bytes are not copied."""
    limit = f"the limit is {fields.document_bytes}; divide it into documents or raise --document-bytes"
    return Rejected(place=place, reason="too_large", detail=f"{found}; {limit}")


def document_id(value: Any, place: Place) -> str:
    """The record's own id if it is usable, else its place."""
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        own_id = str(value)
        if 0 < len(own_id) <= _MAX_ID_CHARACTERS and own_id.isprintable():
            return own_id
    return place.document_id


def _chat_fault(messages: Any, rich_messages: bool) -> str | None:
    if not isinstance(messages, list) or not messages:
        return f"expected a list of messages, found {'an empty list' if messages == [] else _type_name(messages)}"
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            return f"message {index}: expected an object, found {_type_name(message)}"
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str):
            return f"message {index}: 'role': expected a string, found {_type_name(role)}"
        if rich_messages and isinstance(content, list):
            fault = next(filter(None, map(_part_fault, content)), None)
        elif rich_messages and content is None and _is_answered(message):
            fault = None
        else:
            fault = None if isinstance(content, str) else f"expected a string, found {_type_name(content)}"
        if fault is not None:
            return f"message {index}: 'content': {fault}"
        if not _is_unicode(message):
            return f"message {index}: holds an unpaired surrogate"
    if not any(message["role"] == "assistant" and _is_answered(message) for message in messages):
        return "no message of the assistant, so no targets"
    return None


def _part_fault(part: Any) -> str | None:
    """Why a part of a message's content is not text; the teacher reads nothing else."""
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return None
    found = part.get("type") if isinstance(part, dict) else part
    return f"expected parts of type 'text', each with its text; found {found!r:.40}"


def _is_answered(message: dict[str, Any]) -> bool:
    """Whether a message has anything that a template can write."""
    return any(message.get(key) for key in ("content", "tool_calls", *REASONING_KEYS))


def _is_unicode(message: dict[str, Any]) -> bool:
    try:
        json.dumps(message, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    return True


def _type_name(value: Any) -> str:
    return "null" if value is None else type(value).__name__
