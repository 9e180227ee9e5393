"""The first stage: corpus slices → token shards, files of rejected documents, and the unit's record.

Splits, packing and names depend only on the text and the settings, so that a unit tried twice writes the same files.
The unit's record is created last: a unit with a record is finished.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from logitcask.pipeline.corpus.documents import RawDocument, Rejected
from logitcask.pipeline.corpus.range_digest import RangeDigest
from logitcask.pipeline.corpus.reading import read_documents, stored_range
from logitcask.pipeline.tokenization.token_shards import RejectionWriter, ShardWriter, TokenSpec
from logitcask.pipeline.units import leases
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.pipeline.units.known_documents import KnownDocuments, document_hash, write_unit_hashes
from logitcask.pipeline.units.token_units import TokenUnit
from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import ChatSplit
from logitcask.schemas.dataset.token_unit_record import SliceContent, TokenUnitRecord, token_unit_record_path
from logitcask.schemas.errors import FingerprintMismatchError, TokenizerError
from logitcask.schemas.fingerprints import canonical_json
from logitcask.schemas.format.metadata import SPLITS, Split
from logitcask.schemas.seals import create_sealed
from logitcask.teacher.text.chat import RewrittenChatError
from logitcask.teacher.text.chat_template import UnstableTemplateError
from logitcask.teacher.text.packing import Document, kinds_of_chat
from logitcask.teacher.text.rules import TextRules
from logitcask.teacher.text.tokenizers import Tokenizer, load_tokenizer


def tokenize_unit(unit: TokenUnit, spec: TokenSpec, heartbeats: Heartbeats) -> TokenUnitRecord:
    """Reads, tokenizes, packs and commits one unit.

    Raises:
        CorpusError: A corpus file changed after the job started.
        FingerprintMismatchError: This worker's tokenizer differs from the driver's.
    """
    leases.report_phase("read", unit.name)
    tokenizer = cached_tokenizer(spec)
    rejections = RejectionWriter(spec.out, unit.name)
    writers = {split: ShardWriter(unit, split, spec) for split in SPLITS}
    known = KnownDocuments(spec.known)
    num_documents, num_known, num_split = 0, 0, 0
    hashes: list[int] = []
    contents: list[SliceContent] = []
    for found in _tokenized(unit, tokenizer, spec, heartbeats, contents):
        if isinstance(found, Rejected):
            num_documents += 1
            rejections.add(found)
            continue
        split, documents = found
        num_new = 0
        for document in documents:
            hash_ = document_hash(document.ids, spec.tokenizer.eos_id)
            if hash_ in known:
                num_known += 1
                continue
            num_new += 1
            hashes.append(hash_)
            writers[split].add(document)
        num_documents += num_new
        num_split += max(num_new - 1, 0)
    shards = [shard for writer in writers.values() for shard in writer.finish()]
    rejections.close()
    write_unit_hashes(spec.out, unit.name, hashes)
    record = TokenUnitRecord(
        name=unit.name,
        num_documents=num_documents,
        rejected=rejections.counts,
        shards=tuple(shards),
        slices=tuple(contents),
        num_known=num_known,
        num_split=num_split,
    )
    create_sealed(storage.inside(spec.out, token_unit_record_path(unit.name)), record.to_json())
    return record


_tokenizer_lock = threading.Lock()
_tokenizers: dict[tuple[str, TextRules], Tokenizer] = {}


def cached_tokenizer(spec: TokenSpec) -> Tokenizer:
    """This process's tokenizer, loaded once.

    Raises:
        FingerprintMismatchError: It differs from the driver's.
    """
    with _tokenizer_lock:
        tokenizer = _tokenizers.get((spec.tokenizer.fingerprint, spec.rules))
        if tokenizer is None:
            tokenizer = load_tokenizer(spec.tokenizer_reference, spec.rules)
            _tokenizers[tokenizer.info.fingerprint, spec.rules] = tokenizer
    if tokenizer.info.fingerprint != spec.tokenizer.fingerprint:
        raise FingerprintMismatchError(
            f"tokenizer {spec.tokenizer_reference}: fingerprint {tokenizer.info.fingerprint} on this worker, "
            f"{spec.tokenizer.fingerprint} on the driver; give all workers the same files"
        )
    return tokenizer


def is_held_out(document: RawDocument, share: float) -> bool:
    """Whether a document is in the held-out split; depends on its text alone, so that duplicates share a split."""
    text = document.text if document.text is not None else canonical_json(document.messages)
    bits = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
    return bits < share * 2**64


def tokenize_document(
    raw: RawDocument, tokenizer: Tokenizer, vocab_size: int, chat_split: ChatSplit = "auto"
) -> tuple[Document, ...] | Rejected:
    """A document's ids and, for a chat, the kind of each row; several documents if each answer of a chat is one.

    Args:
        raw: Its text or messages.
        tokenizer: The tokenizer of the dataset.
        vocab_size: Size of the teacher's vocabulary; a document with an id not below it is rejected.
        chat_split: Whether to split chats: where the template rewrites earlier turns, always or never.

    Raises:
        UnstableTemplateError: The chat template renders the same messages differently each time.
    """
    if raw.messages is None:
        assert raw.text is not None
        tokens = [(tokenizer.encode(raw.text), None)]
    else:
        try:
            chats = _tokenize_chat(list(raw.messages), tokenizer, chat_split)
        except UnstableTemplateError:
            raise
        except TokenizerError as e:
            return raw.reject("malformed_chat", str(e))
        tokens = [(ids, kinds_of_chat(np.asarray(is_assistant))) for ids, is_assistant in chats]
    documents = []
    for number, (ids, kinds) in enumerate(tokens, start=1):
        if not len(ids):
            return raw.reject("no_tokens", "the tokenizer returned no token")
        if max(ids) >= vocab_size:
            return raw.reject("id_beyond_vocabulary", f"token id {max(ids)}; the teacher has ids below {vocab_size}")
        document_id = raw.id if len(tokens) == 1 else f"{raw.id}/answer-{number}"
        document = Document(id=document_id, source=raw.place.source, ids=np.asarray(ids, np.int32), kinds=kinds)
        documents.append(document)
    return tuple(documents)


def _tokenize_chat(
    messages: list[dict[str, Any]], tokenizer: Tokenizer, chat_split: ChatSplit
) -> list[tuple[list[int], np.ndarray]]:
    if chat_split == "always":
        return tokenizer.split_chat(messages)
    try:
        return [tokenizer.apply_chat(messages)]
    except RewrittenChatError:
        if chat_split == "never":
            raise
        return tokenizer.split_chat(messages)


def _tokenized(
    unit: TokenUnit, tokenizer: Tokenizer, spec: TokenSpec, heartbeats: Heartbeats, contents: list[SliceContent]
) -> Iterator[tuple[Split, tuple[Document, ...]] | Rejected]:
    """Every document of the unit, in order, tokenized and assigned to a split, or its rejection.

    Appends to `contents` what was read of each slice.
    """
    progress = _ByteProgress(heartbeats, unit.size_bytes)
    for piece in unit.slices:
        first, end = stored_range(piece)
        reads = RangeDigest(first, end)
        watched = replace(piece, file=replace(piece.file, reads=reads))
        for raw in read_documents(watched, spec.fields):
            if isinstance(raw, Rejected):
                yield raw
                continue
            progress.advance(len(raw.raw))
            documents = tokenize_document(raw, tokenizer, spec.vocab_size, spec.chat_split)
            if isinstance(documents, Rejected):
                yield documents
            else:
                yield "held-out" if is_held_out(raw, spec.held_out) else "train", documents
        contents.append(SliceContent(name=piece.file.name, first=first, end=end, digest=reads.finish(piece.file.url)))
    progress.finish()


@dataclass(kw_only=False, slots=True)
class _ByteProgress:
    """Reports bytes read as heartbeats that add up to the unit's estimated size."""

    heartbeats: Heartbeats
    left_bytes: int

    def advance(self, read_bytes: int) -> None:
        step = min(read_bytes, self.left_bytes)
        self.left_bytes -= step
        self.heartbeats.advance(step)

    def finish(self) -> None:
        self.advance(self.left_bytes)
