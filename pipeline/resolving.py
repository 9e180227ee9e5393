"""From what a user asked for to what will be done: every `auto` decided, the teacher known, the output claimed.

What decides the shards' bytes is the *identity*; it is compared key by key when a job goes on. What only moves low
bits (device, threads, batch size) is the *environment*; it is decided once, kept, and used again.
"""

import logging
import os
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.annotating import AnnotationSpec, ScorerSpec
from pipeline.appending import check_append
from pipeline.batch_size import find_batch_tokens
from pipeline.configuration import AnnotateConfig
from pipeline.corpus.fields import Fields
from pipeline.corpus.files import CorpusFile, find_corpus
from pipeline.local_workers import check_devices, visible_devices
from pipeline.plan import target_fingerprint
from pipeline.source_groups import group_sources
from pipeline.token_shards import TokenSpec
from schemas import storage
from schemas.dataset import read_configuration, write_configuration
from schemas.errors import ConfigurationMismatchError, TokenizerError, UsageError
from schemas.fingerprints import fingerprint
from schemas.identities import differences
from schemas.scheme import Scheme, further_temperatures
from schemas.shard import ALGORITHM_VERSION, FORMAT_VERSION, TeacherInfo, TokenizerInfo
from schemas.vocabulary import has_vocabulary, write_vocabulary
from teacher.block_sums import choose_kernel
from teacher.gguf_header import read_gguf_header
from teacher.loading import (
    check_device_map,
    check_vocabulary,
    describe_teacher,
    resolve,
    resolve_device,
    resolve_dtype,
)
from teacher.long_windows import describe_long_window
from teacher.packing import pack_documents
from teacher.pieces import piece_bytes
from teacher.projection import rows_of_chunk
from teacher.tokenizers import load_tokenizer

# Raised whenever the same text and settings would give other windows.
PACKING_VERSION = 1

_SHARD_TOKENS = {"cpu": 32_768, "cuda": 1_048_576}
# Compiling the pass over the logits takes 5 s to a minute; for less text than this it would not be earned back.
_MIN_COMPILED_CORPUS_BYTES = 1 << 20
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
    identity: dict[str, Any]
    environment: dict[str, Any]
    tokens: TokenSpec
    targets: AnnotationSpec

    def token_fingerprint(self) -> str:
        """Covers everything but the slice that changes a token shard."""
        keys = ("tokenizer", "text_field", "chat_field", "document_bytes", "window_tokens", "overlap_tokens")
        keys += ("held_out", "shard_tokens", "corpus_licence", "packing_version", "format_version")
        return fingerprint({key: self.identity[key] for key in keys} | {"vocab_size": self.tokens.vocab_size})

    def target_fingerprint(self) -> str:
        """Covers everything but the token shard that changes a target shard."""
        return target_fingerprint(self.identity)


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
    temperatures = further_temperatures(config.temperatures, scheme)
    files = find_corpus(config.corpus)
    begun = read_configuration(config.out)
    environment = _resolve_environment(config, begun["environment"] if begun else {})
    shard_tokens = _resolve_shard_tokens(config, begun["identity"] if begun else {}, environment["device"])
    teacher = describe_teacher(config.teacher, environment["dtype"])
    loaded_tokenizer = load_tokenizer(config.tokenizer or config.teacher)
    tokenizer = loaded_tokenizer.info
    _check_fit(config, tokenizer, teacher)
    environment = _resolve_projection(config, environment, teacher, sum(file.size_bytes for file in files))
    identity = _identity(config, files, tokenizer, teacher, scheme, temperatures, shard_tokens)
    if environment["batch_tokens"] == "auto":
        any_size = environment | {"batch_tokens": config.window}
        spec = _scorer_spec(config, scheme, temperatures, any_size, identity)
        environment |= {"batch_tokens": find_batch_tokens(spec, config.window, in_process=_runs_in_process(config))}
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
        tokens=_token_spec(config, out, tokenizer, teacher, identity["shard_tokens"]),
        targets=AnnotationSpec(
            out=out,
            scorer=_scorer_spec(config, scheme, temperatures, environment, identity),
            teacher=teacher,
            tokenizer=tokenizer,
            window_tokens=config.window,
            has_entropy=config.entropy,
            layout=config.layout,
            corpus_licence=config.corpus_licence,
            sources=group_sources(config.corpus, files),
        ),
    )


def _scheme(config: AnnotateConfig) -> Scheme:
    return Scheme(
        kind=config.head,
        tau=config.tau,
        k=config.k,
        k_min=config.k_min,
        p=config.p,
        draws=config.draws,
        theta=config.theta,
        replicas=config.replicas,
    )


def _resolve_environment(config: AnnotateConfig, begun: dict[str, Any]) -> dict[str, Any]:
    """Asked for, else as begun, else chosen for this machine."""
    device = _choose("device", config.device, begun, "auto")
    if config.runner == "local":  # workers of a cluster have devices that this machine lacks
        device = resolve_device(device)
        check_devices(device, config.workers, visible_devices())
    device_map = _choose("device_map", config.device_map, begun, None)
    if device_map is not None:
        check_device_map(device_map)
    dtype = resolve_dtype(config.dtype if config.dtype != "auto" else begun.get("dtype", "auto"), device)
    return {
        "device": device,
        "dtype": dtype,
        "threads": _choose("threads", config.threads, begun, _default_threads(config.workers)),
        "attention": begun.get("attention", "auto"),
        "batch_tokens": _choose("batch_tokens", config.batch_tokens, begun, "auto"),
        **{name: begun[name] for name in ("row_chunk", "kernel") if name in begun},
        **({"device_map": device_map} if device_map is not None else {}),
    }


def _resolve_projection(
    config: AnnotateConfig, environment: dict[str, Any], teacher: TeacherInfo, corpus_bytes: int
) -> dict[str, Any]:
    """As begun, else what is faster here; each worker of a cluster decides for itself, and says so in its records."""
    kernel = environment.get("kernel", "auto" if corpus_bytes >= _MIN_COMPILED_CORPUS_BYTES else "plain")
    if config.runner == "local":
        kernel = choose_kernel(kernel, teacher.vocab_size, environment["device"])
    row_chunk = environment.get("row_chunk", rows_of_chunk(teacher.vocab_size))
    return environment | {"row_chunk": row_chunk, "kernel": kernel}


def _runs_in_process(config: AnnotateConfig) -> bool:
    return config.runner == "local" and config.workers == 1


def _resolve_shard_tokens(config: AnnotateConfig, begun: dict[str, Any], device: str) -> int:
    chosen = max(config.window, _SHARD_TOKENS[_device_kind(device)])
    return config.shard_tokens or begun.get("shard_tokens") or chosen


def _device_kind(device: str) -> str:
    return "cuda" if device.startswith("cuda") else "cpu"


def _choose(name: str, asked: Any, begun: dict[str, Any], default: Any) -> Any:
    if asked in (None, "auto"):
        return begun.get(name, default)
    if name in begun and begun[name] != asked:
        _logger.warning(
            "%s: the output was begun with %s, going on with %s as asked; targets may differ in their low bits",
            name,
            begun[name],
            asked,
        )
    return asked


def _default_threads(num_workers: int) -> int:
    import torch

    return max(1, torch.get_num_threads() // num_workers)


def _check_fit(config: AnnotateConfig, tokenizer: TokenizerInfo, teacher: TeacherInfo) -> None:
    if tokenizer.vocab_size > teacher.vocab_size + _MAX_ADDED_PIECES:
        check_vocabulary(tokenizer, teacher)
    if config.chat_field is not None and tokenizer.chat_template is None:
        raise TokenizerError(
            f"--chat-field {config.chat_field}: tokenizer {tokenizer.name!r} has no chat template; name one that "
            "has by --tokenizer, or give the conversations as text"
        )
    largest = _max_part_tokens(config.teacher)
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


def _max_part_tokens(teacher: str) -> int | None:
    """The longest sequence that the teacher was made for, where its files say so."""
    from transformers import AutoConfig

    resolved = resolve(teacher)
    if resolved.kind == "gguf":
        return read_gguf_header(resolved.path).setting("context_length")
    config = AutoConfig.from_pretrained(resolved.path, trust_remote_code=False, local_files_only=True)
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def _identity(
    config: AnnotateConfig,
    files: tuple[CorpusFile, ...],
    tokenizer: TokenizerInfo,
    teacher: TeacherInfo,
    scheme: Scheme,
    temperatures: tuple[float, ...],
    shard_tokens: int,
) -> dict[str, Any]:
    return {
        "corpus": {
            "num_files": len(files),
            "size_bytes": sum(file.size_bytes for file in files),
            "fingerprint": fingerprint([file.identity() for file in files]),
        },
        "text_field": None if config.chat_field else config.text_field,
        "chat_field": config.chat_field,
        "document_bytes": config.document_bytes,
        "tokenizer": asdict(tokenizer),
        "teacher": asdict(teacher),
        "scheme": scheme.to_json(),
        # Only where there are any, so that datasets begun without them go on.
        **({"temperatures": list(temperatures)} if temperatures else {}),
        **_padding(config, tokenizer, teacher),
        "window_tokens": config.window,
        "overlap_tokens": config.overlap,
        "held_out": config.held_out,
        "shard_tokens": shard_tokens,
        "entropy": config.entropy,
        **({"layout": config.layout} if config.layout != "plain" else {}),
        "corpus_licence": config.corpus_licence,
        "packing_version": PACKING_VERSION,
        "algorithm_version": ALGORITHM_VERSION,
        "format_version": FORMAT_VERSION,
    }


def _padding(config: AnnotateConfig, tokenizer: TokenizerInfo, teacher: TeacherInfo) -> dict[str, int]:
    """From which id on the teacher's own vocabulary is padding, if it is.

    Rows beyond the tokenizer's ids make the matrix's size round, were never trained on, and cannot occur in text. With
    another tokenizer than the teacher's own nobody knows: it may lack ids that the teacher was trained on.
    """
    if config.tokenizer is not None or tokenizer.vocab_size >= teacher.vocab_size:
        return {}
    return {"num_ids": tokenizer.vocab_size}


def _claim(out: str, begun: dict[str, Any] | None, identity: dict[str, Any], environment: dict[str, Any]) -> None:
    """Begins the dataset, or checks that it was begun with the same identity."""
    if begun is None and not write_configuration(out, identity=identity, environment=environment):
        begun = read_configuration(out)
    if begun is None:
        return
    lines = list(differences(begun["identity"], identity))
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
        corpus_licence=config.corpus_licence,
    )


def _scorer_spec(
    config: AnnotateConfig,
    scheme: Scheme,
    temperatures: tuple[float, ...],
    environment: dict[str, Any],
    identity: dict[str, Any],
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
        num_ids=identity.get("num_ids"),
        kernel=environment["kernel"],
        device_map=environment.get("device_map"),
    )


def _absolute_output(out: str) -> str:
    return out if "://" in out else os.path.abspath(os.path.expanduser(out))  # noqa: PTH100, PTH111


def _absolute(reference: str) -> str:
    """Worker processes may have another working directory."""
    path = os.path.expanduser(reference)  # noqa: PTH111 - a hub id must stay as it is
    return os.path.abspath(path) if os.path.exists(path) else reference  # noqa: PTH100, PTH110
