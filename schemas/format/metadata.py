"""What a shard is: the versions of format and algorithm, and the metadata in its footer."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from logitcask.schemas.format.scheme import Layout, Scheme

FORMAT_VERSION = 1


# Raised whenever the same teacher, tokens and scheme would give other targets.
ALGORITHM_VERSION = 1


Split = Literal["train", "held-out"]


SPLITS: tuple[Split, ...] = ("train", "held-out")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerInfo:
    """Which tokenizer made the ids.

    Attributes:
        name: For people.
        fingerprint: Covers all that changes which ids a text becomes.
        vocabulary_fingerprint: Covers what ids mean (`fingerprints.vocabulary_fingerprint`).
        vocab_size: Largest id + 1.
        bos_id, eos_id: None where the tokenizer defines none.
        chat_template: The template's text, if there is one.
    """

    name: str
    fingerprint: str
    vocabulary_fingerprint: str
    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    chat_template: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherInfo:
    """Which model gave the distributions.

    Attributes:
        name: For people: a hub id or the last component of a path.
        fingerprint: Covers weights and configuration.
        vocab_size: Width of the distribution; stored ids are below it.
        dtype: Of the forward pass. The projection accumulates in float32 whatever it is.
        architecture: Class name in `transformers`.
        num_parameters: Of the whole model.
        licence: As its files state it, None where they do not.
        final_logit_softcap: The cap c of c·tanh(z/c) before the softmax, None where there is none.
    """

    name: str
    fingerprint: str
    vocab_size: int
    dtype: str
    architecture: str
    num_parameters: int
    licence: str | None = None
    final_logit_softcap: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardMetadata:
    """What a shard is: all that changes its meaning, and no time, host or package version.

    Attributes:
        kind: "tokens" or "targets".
        split: "train" or "held-out".
        window_tokens: The most positions a window may have.
        tokenizer: Where the ids come from.
        teacher: Where the targets come from; None for a token shard.
        scheme: How heads were chosen; None for a token shard.
        has_entropy: Whether there is a column `entropy`.
        corpus_licence: Terms of the text, as the user stated them.
        layout: How head ids are stored.
    """

    kind: Literal["tokens", "targets"]
    split: Split
    window_tokens: int
    tokenizer: TokenizerInfo
    teacher: TeacherInfo | None = None
    scheme: Scheme | None = None
    has_entropy: bool = False
    corpus_licence: str | None = None
    layout: Layout = "plain"

    @property
    def vocab_size(self) -> int:
        """Ids in the shard are below this."""
        return self.teacher.vocab_size if self.teacher else self.tokenizer.vocab_size

    def to_json(self) -> dict[str, Any]:
        # Not at the top: numpy, which snapshots are read without.
        from logitcask.schemas.format import quantizer

        fields = asdict(self)
        if self.layout == "plain":
            # Shards had no other when they had no such field: equal shards keep equal bytes.
            del fields["layout"]
        return {
            **fields,
            "scheme": self.scheme.to_json() if self.scheme else None,
            "quantizer": quantizer.NAME if self.kind == "targets" else None,
            "algorithm_version": ALGORITHM_VERSION,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ShardMetadata":
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        known["tokenizer"] = TokenizerInfo(**known["tokenizer"])
        known["teacher"] = TeacherInfo(**known["teacher"]) if known.get("teacher") else None
        known["scheme"] = Scheme.from_json(known["scheme"]) if known.get("scheme") else None
        return cls(**known)
