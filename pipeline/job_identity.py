"""The identity of a job: the settings that change the shards' bytes, checked against its inputs and its dataset."""

import logging
from dataclasses import replace
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
) -> Identity:
    """The identity of a dataset that this job makes, without its corpus."""
    return Identity(
        corpus_licence=config.corpus_license,
        text_field=None if config.chat_field else config.text_field,
        chat_field=config.chat_field,
        document_bytes=config.document_bytes,
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


def check_inputs(config: AnnotateConfig, tokenizer: TokenizerInfo, teacher: TeacherInfo) -> None:
    """Checks that tokenizer, teacher and settings match, and warns of a window with costly attention.

    Raises:
        VocabularyError: The tokenizer has more ids than the teacher.
        TokenizerError: The tokenizer has no chat template, and the corpus has conversations.
        UsageError: The window is too long for the teacher, or too short for the packing.
    """
    if tokenizer.vocab_size > teacher.vocab_size + _MAX_ADDED_PIECES:
        check_vocabulary(tokenizer, teacher)
    if config.chat_field is not None and tokenizer.chat_template is None:
        raise TokenizerError(
            f"--chat-field {config.chat_field}: tokenizer {tokenizer.name!r} has no chat template; name a tokenizer "
            "that has one with --tokenizer, or give the conversations as text"
        )
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
