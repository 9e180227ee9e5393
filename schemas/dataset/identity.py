"""What a dataset is: its resolved settings, which of them change which bytes, and how far each must agree.

`Identity` is the one table of the settings: every field names the shards whose bytes it changes and the scope in which
it must be equal. Fingerprints and comparisons follow from it. `OUT/logitcask.json` and each snapshot store it as JSON.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from logitcask.schemas.checked_json import Count, Label, Number, convert
from logitcask.schemas.errors import UnknownSchemeError, UsageError
from logitcask.schemas.fingerprints import fingerprint
from logitcask.schemas.format.metadata import (
    ALGORITHM_VERSION,
    FORMAT_VERSION,
    ShardMetadata,
    Split,
    TeacherInfo,
    TokenizerInfo,
)
from logitcask.schemas.format.scheme import Layout, Scheme

# Where a setting must be equal: within one annotation job; in all corpora of one dataset, which `annotate --append`
# adds; in all datasets that are merged or trained on together, because the setting changes what a target means.
Scope = Literal["job", "dataset", "targets"]

Shards = Literal["tokens", "targets"]

ChatSplit = Literal["auto", "always", "never"]

# Labels of a teacher or a tokenizer: one model can be in two directories, and only one of them may state its license.
_LABELS = ("name", "licence")
# Forms of a teacher's fingerprint; one that agrees is enough.
_FINGERPRINTS = ("fingerprint", "tensors")


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusInfo:
    """A corpus, by its content.

    Attributes:
        num_files, size_bytes: Its extent.
        fingerprint: Covers the content of all files.
    """

    num_files: Count
    size_bytes: Count
    fingerprint: Label


@dataclass(frozen=True, kw_only=True, slots=True)
class AppendedCorpus(CorpusInfo):
    """A corpus that `annotate --append` added, with its own license."""

    corpus_licence: Label | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """What the table says of a setting.

    Attributes:
        changes: The shards whose bytes it changes.
        agrees: The widest scope in which it must be equal.
        always_stored: Whether its default is stored too. That of a setting which a later release adds must not be, so
            that datasets without the setting keep their fingerprints.
    """

    changes: tuple[Shards, ...]
    agrees: Scope
    always_stored: bool


def _row(*changes: Shards, agrees: Scope, always_stored: bool = False) -> dict[str, _Row]:
    return {"row": _Row(changes=changes, agrees=agrees, always_stored=always_stored)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """The settings of a dataset; None where one is not known.

    Attributes:
        corpus: The first corpus, or the sum of the merged ones.
        corpus_licence: License of the text, as the user stated it.
        text_field, chat_field: The field of a record that holds its text, or its conversation.
        document_bytes: The maximum size of a document.
        token_rules: Version of the rules that make tokens from text; None for the first.
        parse_special: Whether control tokens that a text spells are parsed.
        chat_split: Whether each answer of a conversation is a document of its own.
        chat_date: The day that the chat template was told, as ISO 8601; None where it does not ask.
        tokenizer, teacher, scheme: As in the shards' metadata.
        temperatures: Temperatures other than 1 whose tails are stored.
        num_ids: The first id that is only padding of the teacher's vocabulary; None where none is.
        window_tokens: The maximum number of positions in a window.
        overlap_tokens: Context rows that repeat the end of a cut part.
        held_out: Share of the documents in the held-out split.
        shard_tokens: The target number of positions in a shard.
        entropy: Whether shards have the column `entropy`.
        layout: How head ids are stored.
        packing_version, algorithm_version, format_version: Versions of the rules that make windows, targets and files.
        appended: The corpora that were appended, in order.
        merged: The origins of a merged dataset, as JSON.
        unknown: What a later release stored in addition, as nested JSON; written back unchanged.
    """

    corpus: CorpusInfo | None = field(default=None, metadata=_row(agrees="job"))
    corpus_licence: Label | None = field(default=None, metadata=_row("tokens", agrees="job", always_stored=True))
    text_field: Label | None = field(default=None, metadata=_row("tokens", agrees="dataset", always_stored=True))
    chat_field: Label | None = field(default=None, metadata=_row("tokens", agrees="dataset", always_stored=True))
    document_bytes: Count | None = field(default=None, metadata=_row("tokens", agrees="dataset"))
    token_rules: Count | None = field(default=None, metadata=_row("tokens", agrees="dataset"))
    parse_special: bool = field(default=False, metadata=_row("tokens", agrees="dataset"))
    chat_split: ChatSplit = field(default="never", metadata=_row("tokens", agrees="dataset"))
    chat_date: Label | None = field(default=None, metadata=_row("tokens", agrees="dataset"))
    tokenizer: TokenizerInfo | None = field(default=None, metadata=_row("tokens", agrees="targets"))
    teacher: TeacherInfo | None = field(default=None, metadata=_row("targets", agrees="targets"))
    scheme: Scheme | None = field(default=None, metadata=_row("targets", agrees="targets"))
    temperatures: tuple[Number, ...] = field(default=(), metadata=_row("targets", agrees="targets"))
    num_ids: Count | None = field(default=None, metadata=_row("targets", agrees="targets"))
    window_tokens: Count | None = field(default=None, metadata=_row("tokens", agrees="targets"))
    overlap_tokens: Count | None = field(default=None, metadata=_row("tokens", agrees="dataset"))
    held_out: Number | None = field(default=None, metadata=_row("tokens", agrees="dataset"))
    shard_tokens: Count | None = field(default=None, metadata=_row("tokens", agrees="dataset"))
    entropy: bool | None = field(default=None, metadata=_row("targets", agrees="targets"))
    layout: Layout = field(default="plain", metadata=_row("targets", agrees="dataset"))
    packing_version: Count | None = field(default=None, metadata=_row("tokens", agrees="dataset"))
    algorithm_version: Count | None = field(default=None, metadata=_row("targets", agrees="targets"))
    format_version: Count | None = field(default=None, metadata=_row("tokens", "targets", agrees="targets"))
    appended: tuple[AppendedCorpus, ...] = field(default=(), metadata=_row(agrees="job"))
    merged: tuple[dict[str, Any], ...] = field(default=(), metadata=_row(agrees="job"))
    unknown: dict[str, Any] = field(default_factory=dict)

    @property
    def corpora(self) -> tuple[CorpusInfo, ...]:
        """All corpora, in the order in which they were added."""
        return (*([self.corpus] if self.corpus else []), *self.appended)

    @property
    def vocabulary_fingerprint(self) -> str | None:
        """Covers the meaning of the ids; None where it is not known."""
        return self.tokenizer.vocabulary_fingerprint if self.tokenizer else None

    def holds(self, corpus: CorpusInfo | None) -> bool:
        """Whether a corpus is one of these."""
        return corpus is not None and corpus.fingerprint in {one.fingerprint for one in self.corpora}

    def token_fingerprint(self) -> str:
        """Covers everything except the slice of the corpus that changes the bytes of a token shard."""
        assert self.teacher is not None, "token shards are made for one teacher"
        return fingerprint(self._changing("tokens") | {"vocab_size": self.teacher.vocab_size})

    def target_fingerprint(self) -> str:
        """Covers everything except the token shard that changes the bytes of a target shard."""
        return fingerprint(self._changing("targets"))

    def _changing(self, shards: Shards) -> dict[str, Any]:
        return {name: one for name, one in self.to_json().items() if name in _TABLE and shards in _TABLE[name].changes}

    def shard_metadata(self, kind: Shards, split: Split) -> ShardMetadata:
        """What the footer of a shard says.

        Raises:
            UsageError: Tokenizer, window or, for targets, teacher or scheme are not known.
        """
        needed = ("tokenizer", "window_tokens", *(("teacher", "scheme") if kind == "targets" else ()))
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise UsageError(f"an identity without {' and '.join(missing)} does not describe a shard of {kind}")
        of_targets = {"teacher": self.teacher, "scheme": self.scheme, "has_entropy": bool(self.entropy)}
        known: dict[str, Any] = {"tokenizer": self.tokenizer, "window_tokens": self.window_tokens}
        known |= of_targets | {"layout": self.layout} if kind == "targets" else {}
        return ShardMetadata(kind=kind, split=split, corpus_licence=self.corpus_licence, **known)

    @classmethod
    def of_shards(cls, metadata: ShardMetadata) -> "Identity":
        """What the footer of a target shard says of its dataset; the inverse of `shard_metadata`."""
        return cls(
            corpus_licence=metadata.corpus_licence,
            tokenizer=metadata.tokenizer,
            teacher=metadata.teacher,
            scheme=metadata.scheme,
            window_tokens=metadata.window_tokens,
            entropy=metadata.has_entropy,
            layout=metadata.layout,
            algorithm_version=ALGORITHM_VERSION,
            format_version=FORMAT_VERSION,
        )

    def to_json(self) -> dict[str, Any]:
        """As it is stored; settings with their default are left out, except those that are always stored."""
        stored = {
            one.name: _to_json(getattr(self, one.name))
            for one in fields(self)
            if one.name in _TABLE and (_TABLE[one.name].always_stored or getattr(self, one.name) != one.default)
        }
        return _joined(stored, self.unknown)

    @classmethod
    def from_json(cls, value: Any) -> "Identity":
        """Parses an identity; what this release does not know is kept in `unknown`.

        Raises:
            InvalidValueError: It is not an identity.
        """
        stored = convert(value, dict[str, Any], at="identity")
        settings = {name: one for name, one in stored.items() if name in _TABLE and name != "scheme"}
        identity = convert(settings, cls, at="identity")
        if stored.get("scheme") is not None:
            identity = replace(identity, scheme=_known_scheme(stored["scheme"]))
        return replace(identity, unknown=_without(stored, identity.to_json()))


_TABLE: dict[str, _Row] = {one.name: one.metadata["row"] for one in fields(Identity) if one.metadata}


def differences(
    ours: Identity, theirs: Identity, scope: Scope, *, where: tuple[str, str] = ("in the output", "now")
) -> list[str]:
    """The settings that must agree in a scope but do not: dotted keys, with both values and where each was found."""
    return [
        f"{key}: {_shorten(one)} {where[0]}, {_shorten(other)} {where[1]}"
        for key, one, other in different_settings(ours, theirs, scope)
    ]


def different_settings(ours: Identity, theirs: Identity, scope: Scope) -> list[tuple[str, Any, Any]]:
    """The settings that must agree in a scope but do not: dotted keys, and both values as JSON.

    Labels, the names and licenses of teacher and tokenizer, need not agree.
    """
    if ours.teacher and theirs.teacher:
        same = _FINGERPRINTS if ours.teacher.is_same_model(theirs.teacher) else ("tensors",)
        theirs = replace(theirs, teacher=replace(theirs.teacher, **{one: getattr(ours.teacher, one) for one in same}))
    return list(_differing(_agreeing(ours, scope), _agreeing(theirs, scope)))


def _agreeing(identity: Identity, scope: Scope) -> dict[str, Any]:
    """The settings that must agree in a scope, as JSON. Those of a later release must agree in a dataset."""
    scopes = get_args(Scope)
    return {
        name: {key: one for key, one in value.items() if key not in _LABELS} if isinstance(value, Mapping) else value
        for name, value in identity.to_json().items()
        if scopes.index(_TABLE[name].agrees if name in _TABLE else "dataset") >= scopes.index(scope)
    }


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(key), theirs.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from ((f"{key}.{inner}", a, b) for inner, a, b in _differing(one, other))
        elif one != other:
            yield key, one, other


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def joined_licenses(stated: Sequence[str | None]) -> str | None:
    """Licenses that all apply, as SPDX joins them; None where none is stated."""
    if not any(stated):
        return None
    return " AND ".join(dict.fromkeys(one or "not stated" for one in stated))


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_json(one) for one in value]
    if isinstance(value, Scheme):
        return value.to_json()
    if isinstance(value, TeacherInfo):
        # Earlier releases did not store it: an identity that lacks it keeps its fingerprints.
        return {name: one for name, one in asdict(value).items() if name != "tensors" or one is not None}
    return asdict(value) if isinstance(value, (CorpusInfo, TokenizerInfo)) else value


def _known_scheme(value: Any) -> Scheme | None:
    """None for a scheme of a later release, which can be shown but not used."""
    try:
        return Scheme.from_json(value)
    except UnknownSchemeError:
        return None


def _without(value: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a nested JSON value that another one lacks."""
    rest = {}
    for name, one in value.items():
        if name not in known:
            rest[name] = one
        elif isinstance(one, Mapping) and isinstance(known[name], Mapping) and (nested := _without(one, known[name])):
            rest[name] = nested
    return rest


def _joined(known: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `_without`."""
    nested = {name: _joined(known[name], one) for name, one in more.items() if isinstance(known.get(name), Mapping)}
    return {**known, **more, **nested}
