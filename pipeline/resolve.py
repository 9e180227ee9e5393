"""From the user's settings to a job with nothing left to decide: every `auto` resolved, the output claimed.

Settings that change the shards' bytes are the *identity*; a resumed job compares it key by key. Settings that change
only low bits (device, threads, batch size) are the *environment*; it is resolved once, kept, and used again.
"""

import logging
import os
from dataclasses import dataclass, replace
from typing import Any

from logitcask.pipeline.annotation.annotate_unit import AnnotationSpec
from logitcask.pipeline.annotation.batch_size import find_batch_tokens
from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.corpus.fields import Fields
from logitcask.pipeline.corpus.files import scan_corpus
from logitcask.pipeline.corpus_work import CorpusWork, GivenCorpus, choose_work, new_plan, recorded_plans
from logitcask.pipeline.environment import resolve_environment, resolve_projection
from logitcask.pipeline.job_identity import (
    check_inputs,
    check_same_settings,
    job_identity,
    load_job_tokenizer,
    resolve_shard_tokens,
    with_labels_of,
)
from logitcask.pipeline.tokenization.token_shards import TokenSpec
from logitcask.pipeline.units.corpus_plan import write_plan
from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.layout import Configuration, read_configuration, write_configuration
from logitcask.schemas.dataset.vocabulary import has_vocabulary, write_vocabulary
from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.scheme import Scheme, choose_scheme, extra_temperatures
from logitcask.schemas.output_place import require_output_directory, require_outside
from logitcask.schemas.stats.by_source import SourceGroups
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.text.pieces import piece_bytes
from logitcask.teacher.text.rules import TOKEN_RULES, TextRules

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedJob:
    """A job with nothing left to decide.

    Attributes:
        out: The dataset's directory.
        work: What is to be done.
        num_skipped: Files of the corpus that are not read, by reason.
        identity: Settings that change the shards' bytes.
        tokens: Settings of the first stage.
        targets: Settings of the second stage.
    """

    out: str
    work: CorpusWork
    num_skipped: dict[str, int]
    identity: Identity
    tokens: TokenSpec
    targets: AnnotationSpec


def resolve_job(config: AnnotateConfig) -> ResolvedJob:
    """Resolves and checks all settings and inputs, then claims the output; writes nothing before all checks pass.

    Raises:
        UsageError: A setting is invalid.
        CorpusError, TeacherError, TokenizerError, VocabularyError: An input is missing or does not match the others.
        ForeignOutputError: The output directory holds something else.
        ConfigurationMismatchError: The output was begun with other settings.
    """
    config.check()
    scheme = _scheme(config)
    temperatures = extra_temperatures(config.temperatures, scheme)
    require_outside(config.out, config.corpus)
    begun = read_configuration(config.out)
    if begun is None and config.append:
        raise UsageError(f"{storage.redact(config.out)}: no dataset to append to; annotate without --append first")
    if begun is None:
        require_output_directory(config.out)
    recorded = recorded_plans(config.out, begun.identity) if begun else None
    found = scan_corpus(
        config.corpus,
        recorded.patterns if recorded else (),
        begun.identity.token_rules or 1 if begun else TOKEN_RULES,
    )
    files = found.files
    if found.skipped:
        _logger.warning("the corpus has files that are not read: %s", found.describe_skipped())
    environment = resolve_environment(config, begun.environment if begun else {})
    shard_tokens = resolve_shard_tokens(config, begun, environment["device"])
    teacher = describe_teacher(config.teacher, environment["dtype"])
    loaded_tokenizer, rules = load_job_tokenizer(config, begun)
    tokenizer = loaded_tokenizer.info
    check_inputs(config, tokenizer, teacher)
    environment = resolve_projection(config, environment, teacher, sum(file.size_bytes for file in files))
    identity = job_identity(config, tokenizer, teacher, scheme, temperatures, shard_tokens, rules)
    if environment["batch_tokens"] == "auto":
        trial = _scorer_spec(config, scheme, temperatures, environment | {"batch_tokens": config.window}, identity)
        in_process = config.runner == "local" and config.workers == 1
        environment |= {"batch_tokens": find_batch_tokens(trial, config.window, in_process=in_process)}
    corpus = GivenCorpus(paths=config.corpus, files=files)
    work = _work(config, begun, corpus, identity, environment)
    identity = work.identity
    assert identity.teacher is not None, "a job has a teacher"
    assert identity.tokenizer is not None, "a job has a tokenizer"
    if not has_vocabulary(config.out):
        write_vocabulary(config.out, piece_bytes(loaded_tokenizer), tokenizer.vocabulary_fingerprint)
    out = config.out if "://" in config.out else os.path.abspath(os.path.expanduser(config.out))  # noqa: PTH100, PTH111
    return ResolvedJob(
        out=out,
        work=work,
        num_skipped=found.num_skipped(),
        identity=identity,
        tokens=_token_spec(config, out, identity, rules),
        targets=AnnotationSpec(
            out=out,
            scorer=_scorer_spec(config, scheme, temperatures, environment, identity),
            teacher=identity.teacher,
            tokenizer=identity.tokenizer,
            window_tokens=config.window,
            has_entropy=config.entropy,
            layout=config.layout,
            corpus_license=identity.corpus_licence,
            sources=SourceGroups(prefixes=work.plan.sources if work.plan else {}),
        ),
    )


def _work(
    config: AnnotateConfig,
    begun: Configuration | None,
    corpus: GivenCorpus,
    identity: Identity,
    environment: dict[str, Any],
) -> CorpusWork:
    """What is to be done; begins the dataset if nothing is there."""
    if begun is None:
        plan = new_plan(corpus, identity.token_fingerprint())
        first = replace(identity, corpus=plan.info)
        if write_configuration(config.out, identity=first, environment=environment):
            write_plan(config.out, plan)
            return CorpusWork(plan=plan, units=plan.units, identity=first)
        begun = read_configuration(config.out)
        assert begun is not None, "another process began the dataset"
    identity = with_labels_of(begun.identity, identity)
    check_same_settings(config.out, begun.identity, identity, appends=config.append)
    return choose_work(
        config.out,
        corpus,
        replace(identity, corpus=begun.identity.corpus),
        recorded_plans(config.out, begun.identity),
        appends=config.append,
        allow_duplicates=config.allow_duplicates,
    )


def _scheme(config: AnnotateConfig) -> Scheme:
    names = ("tau", "k", "k_min", "p", "draws", "theta", "replicas")
    return choose_scheme(config.head, {name: getattr(config, name) for name in names})


def _token_spec(config: AnnotateConfig, out: str, identity: Identity, rules: TextRules) -> TokenSpec:
    assert identity.tokenizer is not None
    assert identity.teacher is not None
    assert identity.shard_tokens is not None
    return TokenSpec(
        out=out,
        tokenizer_reference=_absolute(config.tokenizer or config.teacher),
        tokenizer=identity.tokenizer,
        rules=rules,
        fields=Fields(
            text=config.text_field,
            chat=config.chat_field,
            document_bytes=config.document_bytes,
            rich_messages=rules.version > 1,
        ),
        chat_split=identity.chat_split,
        window_tokens=config.window,
        overlap_tokens=config.overlap,
        held_out=config.held_out,
        shard_tokens=identity.shard_tokens,
        vocab_size=identity.teacher.vocab_size,
        corpus_license=config.corpus_license,
    )


def _scorer_spec(
    config: AnnotateConfig,
    scheme: Scheme,
    temperatures: tuple[float, ...],
    environment: dict[str, Any],
    identity: Identity,
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
        num_ids=identity.num_ids,
        kernel=environment["kernel"],
        device_map=environment.get("device_map"),
        window_tokens=config.window,
    )


def _absolute(reference: str) -> str:
    """An existing path as an absolute one, because workers may have another working directory; a hub id unchanged."""
    path = os.path.expanduser(reference)  # noqa: PTH111
    return os.path.abspath(path) if os.path.exists(path) else reference  # noqa: PTH100, PTH110
