"""The identity of a job: the settings that change the shards' bytes, checked against its inputs."""

import logging
from collections.abc import Sequence
from typing import Any

from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.corpus.files import CorpusFile
from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import CorpusInfo, Identity, differences
from logitcask.schemas.dataset.layout import Configuration, read_configuration, write_configuration
from logitcask.schemas.errors import ConfigurationMismatchError, TokenizerError, UsageError
from logitcask.schemas.fingerprints import fingerprint
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
    files: Sequence[CorpusFile],
    tokenizer: TokenizerInfo,
    teacher: TeacherInfo,
    scheme: Scheme,
    temperatures: tuple[float, ...],
    shard_tokens: int,
) -> Identity:
    """The identity of a dataset that holds only this job's corpus."""
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


def claim_output(out: str, begun: Configuration | None, identity: Identity, environment: dict[str, Any]) -> None:
    """Begins the dataset, or checks that it was begun with the same identity.

    Raises:
        ConfigurationMismatchError: The dataset was begun with other settings.
    """
    if begun is None and not write_configuration(out, identity=identity, environment=environment):
        begun = read_configuration(out)
    if begun is None:
        return
    lines = differences(begun.identity, identity, "job")
    if lines:
        raise ConfigurationMismatchError(
            f"{storage.redact(out)} was begun with other settings:\n  "
            + "\n  ".join(lines)
            + "\nUse the same settings to resume, or choose another --out"
        )


def _num_ids(config: AnnotateConfig, tokenizer: TokenizerInfo, teacher: TeacherInfo) -> int | None:
    """The first id of the teacher's vocabulary that is only padding, if any.

    Rows beyond the tokenizer's ids pad the matrix to a round size, were never trained, and cannot occur in text. This
    holds only for the teacher's own tokenizer: another one may lack ids that the teacher was trained on.
    """
    if config.tokenizer is not None or tokenizer.vocab_size >= teacher.vocab_size:
        return None
    return tokenizer.vocab_size
