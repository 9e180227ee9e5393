"""Format and algorithm versions, and the metadata in a shard's footer."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from logitcask.schemas.checked_json import Count, InvalidValueError, Label, Number, TokenId, VocabSize, convert
from logitcask.schemas.errors import UnknownFormatVersionError
from logitcask.schemas.format.scheme import LAYOUTS, Layout, Scheme

FORMAT_VERSION = 1
# Incremented whenever the same teacher, tokens and scheme would give different targets.
ALGORITHM_VERSION = 1
# The name of `schemas.format.quantizer` in the metadata; here, so that reading an identity does not import numpy.
QUANTIZER = "u(1+u)/64 + 1/2048"

Split = Literal["train", "held-out"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerInfo:
    """The tokenizer that made the ids.

    Attributes:
        name: Human-readable name.
        fingerprint: Covers everything that changes which ids a text becomes.
        vocabulary_fingerprint: Covers what ids mean (`fingerprints.vocabulary_fingerprint`).
        vocab_size: Largest id + 1.
        bos_id, eos_id: None if the tokenizer defines none.
        chat_template: The template's text, if there is one.
    """

    name: Label
    fingerprint: Label
    vocabulary_fingerprint: Label
    vocab_size: VocabSize
    bos_id: TokenId | None
    eos_id: TokenId | None
    chat_template: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherInfo:
    """The model that gave the distributions.

    Attributes:
        name: Human-readable name: a hub id or the last component of a path.
        fingerprint: Covers configuration and weight files.
        vocab_size: Width of the distribution; stored ids are below it.
        dtype: Of the forward pass. The projection always accumulates in float32.
        architecture: Class name in `transformers`.
        num_parameters: Of the whole model.
        licence: As the model's files state it; None if they do not.
        final_logit_softcap: The cap c of c·tanh(z/c) before the softmax; None if there is none.
        tensors: Covers configuration and tensors, however they are divided into files; None where it is not known. It
            is in the identity of a dataset, and not in shards, whose bytes do not depend on it.
    """

    name: Label
    fingerprint: Label
    vocab_size: VocabSize
    dtype: Label
    architecture: Label
    num_parameters: Count
    licence: Label | None = None
    final_logit_softcap: Number | None = None
    tensors: Label | None = None

    def is_same_model(self, other: "TeacherInfo") -> bool:
        """Whether the weights and the configuration are the same, whatever the files and names."""
        return self.fingerprint == other.fingerprint or (self.tensors is not None and self.tensors == other.tensors)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardMetadata:
    """Everything that changes the meaning of a shard. Times, hosts and package versions are in its record instead.

    Attributes:
        kind: "tokens" or "targets".
        split: "train" or "held-out".
        window_tokens: Maximum number of positions in a window.
        tokenizer: The tokenizer of the ids.
        teacher: The teacher of the targets; None for a token shard.
        scheme: How heads were chosen; None for a token shard.
        has_entropy: Whether there is a column `entropy`.
        corpus_licence: Terms of the text, as the user stated them.
        layout: How head ids are stored.
    """

    kind: Literal["tokens", "targets"]
    split: Split
    window_tokens: Count
    tokenizer: TokenizerInfo
    teacher: TeacherInfo | None = None
    scheme: Scheme | None = None
    has_entropy: bool = False
    corpus_licence: Label | None = None
    layout: Layout = "plain"

    @property
    def vocab_size(self) -> int:
        """Ids in the shard are below this."""
        return self.teacher.vocab_size if self.teacher else self.tokenizer.vocab_size

    def to_json(self) -> dict[str, Any]:
        fields = asdict(self)
        if self.layout == "plain":
            # The first shards had no such field: equal shards must keep equal bytes.
            del fields["layout"]
        if self.teacher:
            del fields["teacher"]["tensors"]
        return {
            **fields,
            "scheme": self.scheme.to_json() if self.scheme else None,
            "quantizer": QUANTIZER if self.kind == "targets" else None,
            "algorithm_version": ALGORITHM_VERSION,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ShardMetadata":
        """The metadata that `to_json` wrote.

        Raises:
            UnknownFormatVersionError: This release does not know the scheme or the layout.
            CorruptShardError: The scheme's parameters are invalid.
            InvalidValueError: A field is missing, or is not what it must be.
        """
        layout = fields.get("layout", "plain")
        if isinstance(layout, str) and layout not in LAYOUTS:
            raise UnknownFormatVersionError(f"layout {layout[:80]!r}; this release reads {', '.join(LAYOUTS)}")
        metadata = convert({**fields, "scheme": None}, cls)
        if metadata.kind == "tokens":
            return metadata
        if metadata.teacher is None or fields.get("scheme") is None:
            raise InvalidValueError("a shard of targets names neither its teacher nor its scheme")
        return replace(metadata, scheme=Scheme.from_json(fields["scheme"]))
