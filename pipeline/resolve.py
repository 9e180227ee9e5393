"""From what a user asked for to what will be done: every `auto` decided, the teacher known, the output claimed.

What decides the shards' bytes is the *identity*; it is compared key by key when a job goes on. What only moves low
bits (device, threads, batch size) is the *environment*; it is decided once, kept, and used again.
"""

import logging
import os
from dataclasses import dataclass
from typing import Any

from logitcask.pipeline.annotation.annotate_unit import AnnotationSpec
from logitcask.pipeline.annotation.batch_size import find_batch_tokens
from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.corpus.fields import Fields
from logitcask.pipeline.corpus.files import CorpusFile, find_corpus
from logitcask.pipeline.corpus.source_groups import group_sources
from logitcask.pipeline.environment import (
    resolve_environment,
    resolve_projection,
    resolve_shard_tokens,
    runs_in_process,
)
from logitcask.pipeline.finalization.append import check_append
from logitcask.pipeline.tokenization.token_shards import TokenSpec
from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import CorpusInfo, Identity, differences
from logitcask.schemas.dataset.layout import Configuration, read_configuration, write_configuration
from logitcask.schemas.dataset.vocabulary import has_vocabulary, write_vocabulary
from logitcask.schemas.errors import ConfigurationMismatchError, TokenizerError, UsageError
from logitcask.schemas.fingerprints import fingerprint
from logitcask.schemas.format.metadata import ALGORITHM_VERSION, FORMAT_VERSION, TeacherInfo, TokenizerInfo
from logitcask.schemas.format.scheme import Scheme, choose_scheme, extra_temperatures
from logitcask.teacher.model.attention_cost import describe_long_window, max_part_tokens
from logitcask.teacher.model.description import check_vocabulary, describe_teacher
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.text.packing import pack_documents
from logitcask.teacher.text.pieces import piece_bytes
from logitcask.teacher.text.tokenizers import load_tokenizer

# Raised whenever the same text and settings would give other windows.
PACKING_VERSION = 1


# Pieces that were added to a tokenizer after training (an image token, say) may lie beyond the teacher's rows: they do
# not occur in text. More than this many mean that tokenizer and teacher do not belong together.
_MAX_ADDED_PIECES = 256


_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedJob:
    """A job with nothing left to decide.

    Attributes:
        out: The dataset's directory.
        files: The corpus.
        identity: What decides the shards' bytes.
        environment: What moves their low bits.
        tokens: Settings of the first stage.
        targets: Settings of the second stage.
    """

    out: str
    files: tuple[CorpusFile, ...]
    identity: Identity
    environment: dict[str, Any]
    tokens: TokenSpec
    targets: AnnotationSpec


def resolve_job(config: AnnotateConfig) -> ResolvedJob:
    """Decides everything, checks that it fits together, and claims the output; writes nothing if it does not.

    Raises:
        UsageError: A setting cannot be meant.
        CorpusError, TeacherError, TokenizerError, VocabularyError: An input is missing or does not fit.
        ForeignOutputError: The output holds something else.
        ConfigurationMismatchError: The output was begun with other settings.
    """
    config.check()
    scheme = _scheme(config)
    temperatures = extra_temperatures(config.temperatures, scheme)
    files = find_corpus(config.corpus)
    begun = read_configuration(config.out)
    environment = resolve_environment(config, begun.environment if begun else {})
    shard_tokens = resolve_shard_tokens(config, begun, environment["device"])
    teacher = describe_teacher(config.teacher, environment["dtype"])
    loaded_tokenizer = load_tokenizer(config.tokenizer or config.teacher)
    tokenizer = loaded_tokenizer.info
    _check_fit(config, tokenizer, teacher)
    environment = resolve_projection(config, environment, teacher, sum(file.size_bytes for file in files))
    identity = _identity(config, files, tokenizer, teacher, scheme, temperatures, shard_tokens)
    if environment["batch_tokens"] == "auto":
        any_size = environment | {"batch_tokens": config.window}
        spec = _scorer_spec(config, scheme, temperatures, any_size, identity.num_ids)
        environment |= {"batch_tokens": find_batch_tokens(spec, config.window, in_process=runs_in_process(config))}
    if config.append:
        check_append(config.out, begun, identity)
    else:
        _claim(config.out, begun, identity, environment)
    if not has_vocabulary(config.out):
        write_vocabulary(config.out, piece_bytes(loaded_tokenizer), tokenizer.vocabulary_fingerprint)
    out = _absolute_output(config.out)
    return ResolvedJob(
        out=out,
        files=files,
        identity=identity,
        environment=environment,
        tokens=_token_spec(config, out, tokenizer, teacher, shard_tokens),
        targets=AnnotationSpec(
            out=out,
            scorer=_scorer_spec(config, scheme, temperatures, environment, identity.num_ids),
            teacher=teacher,
            tokenizer=tokenizer,
            window_tokens=config.window,
            has_entropy=config.entropy,
            layout=config.layout,
            corpus_license=config.corpus_license,
            sources=group_sources(config.corpus, files),
        ),
    )


def _scheme(config: AnnotateConfig) -> Scheme:
    names = ("tau", "k", "k_min", "p", "draws", "theta", "replicas")
    return choose_scheme(config.head, {name: getattr(config, name) for name in names})


def _check_fit(config: AnnotateConfig, tokenizer: TokenizerInfo, teacher: TeacherInfo) -> None:
    if tokenizer.vocab_size > teacher.vocab_size + _MAX_ADDED_PIECES:
        check_vocabulary(tokenizer, teacher)
    if config.chat_field is not None and tokenizer.chat_template is None:
        raise TokenizerError(
            f"--chat-field {config.chat_field}: tokenizer {tokenizer.name!r} has no chat template; name one that "
            "has by --tokenizer, or give the conversations as text"
        )
    largest = max_part_tokens(config.teacher)
    if largest is not None and config.window > largest:
        raise UsageError(f"--window {config.window}: teacher {teacher.name!r} can attend to {largest} tokens at most")
    cost = describe_long_window(config.teacher, teacher.num_parameters, config.window)
    if cost is not None:
        _logger.warning("%s", cost)
    # The packer knows what the smallest window is; asked with no document, it only checks.
    list(
        pack_documents(
            (),
            window_tokens=config.window,
            overlap_tokens=config.overlap,
            bos_id=tokenizer.bos_id,
            eos_id=tokenizer.eos_id,
        )
    )


def _identity(
    config: AnnotateConfig,
    files: tuple[CorpusFile, ...],
    tokenizer: TokenizerInfo,
    teacher: TeacherInfo,
    scheme: Scheme,
    temperatures: tuple[float, ...],
    shard_tokens: int,
) -> Identity:
    return Identity(
        corpus=CorpusInfo(
            num_files=len(files),
            size_bytes=sum(file.size_bytes for file in files),
            fingerprint=fingerprint([file.identity() for file in files]),
        ),
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


def _num_ids(config: AnnotateConfig, tokenizer: TokenizerInfo, teacher: TeacherInfo) -> int | None:
    """From which id on the teacher's own vocabulary is padding, if it is.

    Rows beyond the tokenizer's ids make the matrix's size round, were never trained on, and cannot occur in text. With
    another tokenizer than the teacher's own nobody knows: it may lack ids that the teacher was trained on.
    """
    if config.tokenizer is not None or tokenizer.vocab_size >= teacher.vocab_size:
        return None
    return tokenizer.vocab_size


def _claim(out: str, begun: Configuration | None, identity: Identity, environment: dict[str, Any]) -> None:
    """Begins the dataset, or checks that it was begun with the same identity."""
    if begun is None and not write_configuration(out, identity=identity, environment=environment):
        begun = read_configuration(out)
    if begun is None:
        return
    lines = differences(begun.identity, identity, "job")
    if lines:
        raise ConfigurationMismatchError(
            f"{storage.redact(out)} was begun with other settings:\n  "
            + "\n  ".join(lines)
            + "\nGo on with the same settings, or choose another --out"
        )


def _token_spec(
    config: AnnotateConfig, out: str, tokenizer: TokenizerInfo, teacher: TeacherInfo, shard_tokens: int
) -> TokenSpec:
    return TokenSpec(
        out=out,
        tokenizer_reference=_absolute(config.tokenizer or config.teacher),
        tokenizer=tokenizer,
        fields=Fields(text=config.text_field, chat=config.chat_field, document_bytes=config.document_bytes),
        window_tokens=config.window,
        overlap_tokens=config.overlap,
        held_out=config.held_out,
        shard_tokens=shard_tokens,
        vocab_size=teacher.vocab_size,
        corpus_license=config.corpus_license,
    )


def _scorer_spec(
    config: AnnotateConfig,
    scheme: Scheme,
    temperatures: tuple[float, ...],
    environment: dict[str, Any],
    num_ids: int | None,
) -> ScorerSpec:
    return ScorerSpec(
        reference=_absolute(config.teacher),
        device=environment["device"],
        dtype=environment["dtype"],
        attention=environment["attention"],
        num_threads=environment["threads"],
        batch_tokens=environment["batch_tokens"],
        row_chunk=environment["row_chunk"],
        scheme=scheme,
        temperatures=temperatures,
        num_ids=num_ids,
        kernel=environment["kernel"],
        device_map=environment.get("device_map"),
    )


def _absolute_output(out: str) -> str:
    return out if "://" in out else os.path.abspath(os.path.expanduser(out))  # noqa: PTH100, PTH111


def _absolute(reference: str) -> str:
    """Worker processes may have another working directory."""
    path = os.path.expanduser(reference)  # noqa: PTH111 - a hub id must stay as it is
    return os.path.abspath(path) if os.path.exists(path) else reference  # noqa: PTH100, PTH110
