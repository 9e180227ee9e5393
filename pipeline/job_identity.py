"""The identity of a job: the settings that change the shards' bytes, checked against its inputs and its dataset."""

import logging
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from logitcask.pipeline.config import AnnotateConfig
from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import Identity, different_settings
from logitcask.schemas.dataset.layout import Configuration
from logitcask.schemas.errors import ConfigurationMismatchError, TokenizerError, UsageError
from logitcask.schemas.format.metadata import ALGORITHM_VERSION, FORMAT_VERSION, TeacherInfo, TokenizerInfo
from logitcask.schemas.format.scheme import Scheme
from logitcask.teacher.model.attention_cost import describe_long_window, max_part_tokens
from logitcask.teacher.model.description import check_vocabulary
from logitcask.teacher.text.packing import pack_documents
from logitcask.teacher.text.rules import TOKEN_RULES, TextRules
from logitcask.teacher.text.tokenizers import Tokenizer, load_tokenizer

# Increased when the same text and settings would give other windows.
PACKING_VERSION = 1
# Pieces that were added to a tokenizer after training (such as an image token) may have ids beyond the teacher's rows:
# they do not occur in text. If there are more than this, tokenizer and teacher do not match.
_MAX_ADDED_PIECES = 256
_SHARD_TOKENS = {"cpu": 32_768, "cuda": 1_048_576}
_logger = logging.getLogger(__name__)


def job_identity(
    config: AnnotateConfig,
    tokenizer: TokenizerInfo,
    teacher: TeacherInfo,
    scheme: Scheme,
    temperatures: tuple[float, ...],
    shard_tokens: int,
    rules: TextRules,
) -> Identity:
    """The identity of a dataset that this job makes, without its corpus."""
    return Identity(
        corpus_licence=config.corpus_license,
        text_field=None if config.chat_field else config.text_field,
        chat_field=config.chat_field,
        document_bytes=config.document_bytes,
        token_rules=None if rules.version == 1 else rules.version,
        parse_special=rules.parse_special,
        chat_split=config.chat_split if config.chat_field and rules.version > 1 else "never",
        chat_date=rules.today.isoformat() if rules.today else None,
        tokenizer=tokenizer,
        teacher=teacher,
        scheme=scheme,
        temperatures=temperatures,
        num_ids=_num_ids(config, tokenizer, teacher),
        window_tokens=config.window,
        overlap_tokens=config.overlap,
        held_out=config.held_out,
        shard_tokens=shard_tokens,
        entropy=config.entropy,
        layout=config.layout,
        packing_version=PACKING_VERSION,
        algorithm_version=ALGORITHM_VERSION,
        format_version=FORMAT_VERSION,
    )


def resolve_shard_tokens(config: AnnotateConfig, begun: Configuration | None, device: str) -> int:
    """The setting, else the begun dataset's, else a default for the device."""
    default = max(config.window, _SHARD_TOKENS["cuda" if device.startswith("cuda") else "cpu"])
    return config.shard_tokens or (begun and begun.identity.shard_tokens) or default


def load_job_tokenizer(config: AnnotateConfig, begun: Configuration | None) -> tuple[Tokenizer, TextRules]:
    """The job's tokenizer, and how it reads text: by the begun dataset's rules, else by the current ones.

    A chat template that asks for the date gets the setting, else the begun dataset's, else today.

    Raises:
        TeacherError, TokenizerError: There is no tokenizer, or its chat template is missing, invalid or unstable.
        UsageError: A setting has no effect with this tokenizer, or a newer release began the dataset.
    """
    version = (begun.identity.token_rules or 1) if begun else TOKEN_RULES
    if version > TOKEN_RULES:
        raise UsageError(
            f"{storage.redact(config.out)}: tokenized by rules of version {version}; this release knows {TOKEN_RULES}; "
            "install a newer logitcask"
        )
    rules = TextRules(version=version, parse_special=config.parse_special, today=_chat_date(config, begun))
    tokenizer = load_tokenizer(config.tokenizer or config.teacher, rules)
    if config.chat_field is not None and tokenizer.info.chat_template is None:
        raise TokenizerError(
            f"--chat-field {config.chat_field}: tokenizer {tokenizer.info.name!r} has no chat template; name a "
            "tokenizer that has one with --tokenizer, or give the conversations as text"
        )
    asks_for_date = config.chat_field is not None and version > 1 and tokenizer.asks_for_date
    if config.chat_date is not None and not asks_for_date:
        raise UsageError(f"--chat-date {config.chat_date}: no chat template of this job asks for a date; leave it out")
    return tokenizer, rules if asks_for_date else replace(rules, today=None)


def _chat_date(config: AnnotateConfig, begun: Configuration | None) -> date:
    stated = config.chat_date or (begun and begun.identity.chat_date)
    try:
        return date.fromisoformat(stated) if stated else datetime.now().astimezone().date()
    except ValueError as e:
        raise UsageError(f"{storage.redact(config.out)}: the dataset's chat_date {stated!r} is not a day") from e


def check_inputs(config: AnnotateConfig, tokenizer: TokenizerInfo, teacher: TeacherInfo) -> None:
    """Checks that tokenizer, teacher and settings match, and warns of a window with costly attention.

    Raises:
        VocabularyError: The tokenizer has more ids than the teacher.
        UsageError: The window is too long for the teacher, or too short for the packing.
    """
    if tokenizer.vocab_size > teacher.vocab_size + _MAX_ADDED_PIECES:
        check_vocabulary(tokenizer, teacher)
    largest = max_part_tokens(config.teacher)
    if largest is not None and config.window > largest:
        raise UsageError(f"--window {config.window}: teacher {teacher.name!r} can attend to {largest} tokens at most")
    cost = describe_long_window(config.teacher, teacher.num_parameters, config.window)
    if cost is not None:
        _logger.warning("%s", cost)
    # The packer defines the minimum window; without a document it only checks it.
    list(
        pack_documents(
            (),
            window_tokens=config.window,
            overlap_tokens=config.overlap,
            bos_id=tokenizer.bos_id,
            eos_id=tokenizer.eos_id,
        )
    )


# Settings of an identity that an option sets directly; the other keys of a scheme have their own names.
_OPTIONS = {
    "corpus_licence": "--corpus-license",
    "window_tokens": "--window",
    "overlap_tokens": "--overlap",
    "scheme.kind": "--head",
    "teacher.dtype": "--dtype",
}
# Settings that several inputs decide together, or none.
_CAUSES = {
    "tokenizer": "the tokenizer (--tokenizer, or that of --teacher) is another one",
    "teacher": "the teacher (--teacher) is another one: its weights or its configuration differ",
    "num_ids": "the tokenizer (--tokenizer, or that of --teacher) is another one",
    "packing_version": "another release packs windows differently",
    "algorithm_version": "another release computes targets differently",
    "format_version": "another release writes another format",
}


def with_labels_of(begun: Identity, identity: Identity) -> Identity:
    """The identity with the labels (names, licenses) that a dataset was begun with, where the content is the same.

    Labels are in the shards and in the names of units, so they must not change within a dataset.
    """
    teacher, tokenizer = identity.teacher, identity.tokenizer
    if begun.teacher and teacher and begun.teacher.is_same_model(teacher):
        labels = ("name", "licence", "fingerprint", "tensors")
        teacher = replace(teacher, **{name: getattr(begun.teacher, name) for name in labels})
    if begun.tokenizer and tokenizer and begun.tokenizer.fingerprint == tokenizer.fingerprint:
        tokenizer = replace(tokenizer, name=begun.tokenizer.name)
    return replace(identity, teacher=teacher, tokenizer=tokenizer)


def check_same_settings(out: str, begun: Identity, identity: Identity, *, appends: bool) -> None:
    """Checks that a dataset was begun with the same settings; its corpora are compared elsewhere.

    Raises:
        ConfigurationMismatchError: It was not; names the options, with both values.
    """
    ours = replace(begun, corpus=None, appended=(), merged=())
    found = different_settings(ours, identity, "dataset" if appends else "job")
    if found:
        lines = dict.fromkeys(_describe_difference(*one) for one in found)
        raise ConfigurationMismatchError(
            f"{storage.redact(out)} was begun with other settings:\n  "
            + "\n  ".join(lines)
            + "\nUse the same settings, or choose another --out"
            + ("; `logitcask merge` joins datasets whose targets agree" if appends else "")
        )


def _describe_difference(key: str, ours: Any, theirs: Any) -> str:
    """A line that names the option, if there is one."""
    group = key.partition(".")[0]
    if key not in _OPTIONS and group in _CAUSES:
        return _CAUSES[group]
    name = key.removeprefix("scheme.")
    option = _OPTIONS.get(key) or f"--{name.replace('_', '-')}"
    return f"{option}: {_shorten(ours)} in the output, {_shorten(theirs)} now"


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _num_ids(config: AnnotateConfig, tokenizer: TokenizerInfo, teacher: TeacherInfo) -> int | None:
    """The first id of the teacher's vocabulary that is only padding, if any.

    Rows beyond the tokenizer's ids pad the matrix to a round size, were never trained, and cannot occur in text. This
    holds only for the teacher's own tokenizer: another one may lack ids that the teacher was trained on.
    """
    if config.tokenizer is not None or tokenizer.vocab_size >= teacher.vocab_size:
        return None
    return tokenizer.vocab_size
