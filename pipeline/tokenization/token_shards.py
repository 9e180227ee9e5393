"""The output of a token unit: token shards of each split, and files of rejected documents."""

import json
from dataclasses import dataclass, field

from logitcask.pipeline.corpus.documents import Rejected
from logitcask.pipeline.corpus.fields import Fields
from logitcask.pipeline.units.token_units import TokenUnit, token_shard_name
from logitcask.schemas import storage
from logitcask.schemas.dataset.commit import commit_shard
from logitcask.schemas.dataset.identity import ChatSplit
from logitcask.schemas.dataset.layout import rejected_path
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.token_unit_record import TokenShard
from logitcask.schemas.format.metadata import ShardMetadata, Split, TokenizerInfo
from logitcask.schemas.format.targets import Windows
from logitcask.schemas.format.writer import encode_shard
from logitcask.teacher.text.packing import Document, pack_documents
from logitcask.teacher.text.rules import TextRules

# A file of rejected documents is closed at this size.
_REJECTED_FILE_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenSpec:
    """What a worker needs to tokenize units; small and picklable.

    Attributes:
        out: The dataset's directory.
        tokenizer_reference: Which tokenizer to load.
        tokenizer: The description that the loaded tokenizer must match.
        rules: How it reads text.
        chat_split: Whether each answer of a conversation is a document of its own.
        fields: The fields that are read from each record.
        window_tokens: Maximum positions of a window.
        overlap_tokens: Positions of a window that repeat the end of the previous one.
        held_out: Share of documents, by hash of their text, in the held-out split.
        shard_tokens: Maximum positions of a shard.
        vocab_size: Size of the teacher's vocabulary; documents with an id not below it are rejected.
        corpus_license: Terms of the text, as the user stated them.
        known: Files of an index of known documents, which are left out (`pipeline.units.known_documents`).
    """

    out: str
    tokenizer_reference: str
    tokenizer: TokenizerInfo
    rules: TextRules
    chat_split: ChatSplit
    fields: Fields
    window_tokens: int
    overlap_tokens: int
    held_out: float
    shard_tokens: int
    vocab_size: int
    corpus_license: str | None
    known: tuple[str, ...] = ()


class ShardWriter:
    """Packs the documents of one split into windows and commits each full shard.

    Documents are packed in batches of about one shard: the packer needs an iterable, and documents of both splits
    alternate.
    """

    def __init__(self, unit: TokenUnit, split: Split, spec: TokenSpec) -> None:
        self._unit, self._spec = unit, spec
        self._split: Split = split
        self._pending: list[Document] = []
        self._pending_tokens = 0
        self._windows: list[Windows] = []
        self._num_positions = 0
        self._shards: list[TokenShard] = []

    def add(self, document: Document) -> None:
        self._pending.append(document)
        self._pending_tokens += len(document.ids)
        if self._pending_tokens >= self._spec.shard_tokens:
            self._pack()

    def finish(self) -> list[TokenShard]:
        """Commits the remaining windows; returns all shards of the split."""
        self._pack()
        self._commit()
        return self._shards

    def _pack(self) -> None:
        packed = pack_documents(
            self._pending,
            window_tokens=self._spec.window_tokens,
            overlap_tokens=self._spec.overlap_tokens,
            bos_id=self._spec.tokenizer.bos_id,
            eos_id=self._spec.tokenizer.eos_id,
        )
        for window in packed:
            if self._num_positions + window.num_positions > self._spec.shard_tokens:
                self._commit()
            self._windows.append(window)
            self._num_positions += window.num_positions
        self._pending, self._pending_tokens = [], 0

    def _commit(self) -> None:
        if not self._windows:
            return
        windows = Windows.concatenate(self._windows)
        self._windows, self._num_positions = [], 0
        metadata = ShardMetadata(
            kind="tokens",
            split=self._split,
            window_tokens=self._spec.window_tokens,
            tokenizer=self._spec.tokenizer,
            corpus_licence=self._spec.corpus_license,
        )
        record = UnitRecord(
            name=token_shard_name(self._unit, self._split, len(self._shards)),
            kind="tokens",
            split=self._split,
            num_documents=windows.num_documents(),
        )
        committed = commit_shard(self._spec.out, encode_shard(windows, None, metadata), record)
        self._shards.append(token_shard(committed))


def token_shard(record: UnitRecord) -> TokenShard:
    """The part of a token shard's record that annotation units need."""
    return TokenShard(
        name=record.name,
        split=record.split,
        num_windows=record.num_windows,
        num_positions=record.num_positions,
        num_documents=record.num_documents,
        footer_digest=record.footer_digest,
    )


@dataclass(kw_only=False, slots=True)
class RejectionWriter:
    """Rejected documents of a unit → `rejected/<unit>-<file>.<digits>.jsonl`."""

    out: str
    name: str
    counts: dict[str, int] = field(default_factory=dict)
    _lines: list[bytes] = field(default_factory=list)
    _num_bytes: int = 0
    _num_files: int = 0

    def add(self, rejected: Rejected) -> None:
        self.counts[rejected.reason] = self.counts.get(rejected.reason, 0) + 1
        line = json.dumps(rejected.to_json(), ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        self._lines.append(line)
        self._num_bytes += len(line)
        if self._num_bytes >= _REJECTED_FILE_BYTES:
            self.close()

    def close(self) -> None:
        if self._lines:
            data = b"".join(self._lines)
            storage.create(storage.inside(self.out, rejected_path(f"{self.name}-{self._num_files:04d}", data)), data)
            self._num_files += 1
            self._lines, self._num_bytes = [], 0
