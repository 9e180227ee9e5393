"""Random windows and targets, without a model, that obey every rule of the format; and datasets of them."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from logitcask.schemas import DatasetWriter, storage
from logitcask.schemas.dataset.dataset_writer import write_shard
from logitcask.schemas.dataset.identity import CorpusInfo, Identity
from logitcask.schemas.dataset.layout import rejected_path
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.format.metadata import (
    ALGORITHM_VERSION,
    FORMAT_VERSION,
    SPLITS,
    ShardMetadata,
    Split,
    TeacherInfo,
    TokenizerInfo,
)
from logitcask.schemas.format.scheme import ThresholdScheme
from logitcask.schemas.format.targets import Kind, Part, TailSample, Targets, Windows
from logitcask.schemas.stats.by_source import SourceGroups, summarize_by_source
from logitcask.schemas.stats.target_statistics import Statistics
from logitcask.schemas.stats.vocabulary_statistics import STEPS_PER_UNIT, VocabularyStatistics

VOCAB_SIZE = 300
TOKENIZER = TokenizerInfo(
    name="test", fingerprint="f0", vocabulary_fingerprint="f1", vocab_size=VOCAB_SIZE, bos_id=2, eos_id=1
)
TEACHER = TeacherInfo(
    name="test/teacher",
    fingerprint="f2",
    vocab_size=VOCAB_SIZE,
    dtype="float32",
    architecture="Gemma2ForCausalLM",
    num_parameters=10_000,
    licence="apache-2.0",
    final_logit_softcap=30.0,
)
IDENTITY = Identity(
    tokenizer=TOKENIZER,
    teacher=TEACHER,
    scheme=ThresholdScheme(),
    window_tokens=64,
    entropy=True,
    algorithm_version=ALGORITHM_VERSION,
    format_version=FORMAT_VERSION,
)


def metadata_of(split: Split = "train", **changes: Any) -> ShardMetadata:
    """What a target shard of `IDENTITY`, with some fields changed, says of itself."""
    return dataclasses.replace(IDENTITY.shard_metadata("targets", split), **changes)


def random_windows(
    rng: np.random.Generator,
    lengths: Sequence[int],
    *,
    ids: range = range(VOCAB_SIZE),
    longest_part: int = 40,
    prefix: str = "document",
) -> Windows:
    """Windows of the given lengths, cut into parts of random lengths; a tenth of the rows have no target.

    Args:
        rng: Source of all random numbers.
        lengths: Rows of each window.
        ids: The possible tokens.
        longest_part: Maximum number of rows of a part.
        prefix: What the ids of documents begin with; their number follows.
    """
    num_positions = sum(lengths)
    part, parts = np.empty(num_positions, np.int32), []
    start = 0
    for length in lengths:
        end = start + length
        while start < end:
            stop = min(end, start + int(rng.integers(1, longest_part + 1)))
            part[start:stop] = len(parts)
            parts.append(Part(id=f"{prefix}-{len(parts)}", source=f"corpus/ö.txt#{len(parts)}", offset=0))
            start = stop
    kinds = rng.choice([Kind.TRAIN, Kind.CONTEXT, Kind.PROMPT, Kind.GENERATED], num_positions, p=[0.8, 0.05, 0.05, 0.1])
    return Windows(
        token=rng.integers(ids.start, ids.stop, num_positions, dtype=np.int32),
        kind=kinds.astype(np.uint8),
        part=part,
        window_offsets=np.cumsum([0, *lengths]).astype(np.int64),
        parts=tuple(parts),
    )


def random_targets(
    rng: np.random.Generator,
    windows: Windows,
    vocab_size: int = VOCAB_SIZE,
    *,
    widths: range = range(1, 41),
    num_samples: int = 0,
    temperatures: Sequence[float] = (),
) -> Targets:
    """Exact targets, in float64 before they are stored, of random softmaxes.

    Args:
        rng: Source of all random numbers.
        windows: T positions.
        vocab_size: Ids of the softmaxes.
        widths: Possible numbers of head entries, which are the largest of a row.
        num_samples: Replicas of three draws from the tail.
        temperatures: Temperatures whose tails are stored.
    """
    logits = 3 * rng.standard_normal((windows.num_positions, vocab_size))
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    has_target = windows.has_target()
    heads = [
        np.sort(np.argsort(-row, kind="stable")[: rng.integers(widths.start, widths.stop) if target else 0])
        for row, target in zip(log_probs, has_target, strict=True)
    ]
    label = np.take_along_axis(log_probs, np.maximum(windows.next_token(), 0)[:, None], 1)[:, 0]

    def column(values: np.ndarray) -> np.ndarray:
        return np.where(has_target, values, np.nan).astype(np.float32)

    def log_tail(log_probs: np.ndarray) -> np.ndarray:
        return column(np.array([_log_sum(np.delete(row, head)) for row, head in zip(log_probs, heads, strict=True)]))

    return Targets(
        head_ids=np.concatenate(heads).astype(np.int32),
        head_log_probs=np.concatenate([row[head] for row, head in zip(log_probs, heads, strict=True)]).astype("f4"),
        head_offsets=np.cumsum([0, *map(len, heads)]).astype(np.int64),
        log_tail=log_tail(log_probs),
        log_next=np.where(windows.has_label(), label, np.nan).astype(np.float32),
        entropy=column(-(np.exp(log_probs) * log_probs).sum(1)),
        top1_ids=np.where(has_target, log_probs.argmax(1), -1).astype(np.int32),
        tail_samples=tuple(_random_draws(rng, heads, has_target, vocab_size) for _ in range(num_samples)),
        tempered_log_tails={
            t: log_tail(log_probs / t - np.log(np.exp(log_probs / t).sum(1, keepdims=True))) for t in temperatures
        },
    )


def _log_sum(log_probs: np.ndarray) -> float:
    return float(np.log(np.exp(log_probs).sum()))


def _random_draws(
    rng: np.random.Generator, heads: Sequence[np.ndarray], has_target: np.ndarray, vocab_size: int
) -> TailSample:
    """Three different ids of each row's tail."""
    tails = [np.setdiff1d(np.arange(vocab_size), heads[row]) for row in np.flatnonzero(has_target)]
    draws = [np.sort(rng.choice(tail, 3, replace=False)) for tail in tails]
    return TailSample(ids=np.concatenate(draws).astype(np.int32), offsets=np.cumsum([0, *(3 * has_target)]))


THREE_SHARDS: Mapping[Split, Sequence[Sequence[int]]] = {"train": [[64, 40], [64, 40]], "held-out": [[64, 40]]}


def write_random_dataset(
    out: str,
    shards: Mapping[Split, Sequence[Sequence[int]]] = THREE_SHARDS,
    *,
    seed: int = 0,
    identity: Identity = IDENTITY,
    rejected: Mapping[str, int] | None = None,
    longest_part: int = 40,
    **options: Any,
) -> Snapshot:
    """Writes a finished dataset of target shards; ids of documents are SPLIT-SHARD-NUMBER.

    Args:
        out: The dataset's directory.
        shards: The lengths of the windows of each shard, by split.
        seed: Of windows and targets.
        identity: What the shards are.
        rejected: Reason to number of rejected documents.
        longest_part: Maximum number of rows of a part.
        options: Further arguments of `random_targets`.
    """
    rng = np.random.default_rng(seed)
    assert identity.tokenizer is not None
    assert identity.teacher is not None
    writer = DatasetWriter(out, identity)
    for split, shards_of_split in shards.items():
        for number, lengths in enumerate(shards_of_split):
            ids, prefix = range(identity.tokenizer.vocab_size), f"{split}-{number}"
            windows = random_windows(rng, lengths, ids=ids, longest_part=longest_part, prefix=prefix)
            targets = random_targets(rng, windows, identity.teacher.vocab_size, **options)
            writer.write(windows, targets, split=split)
    return writer.finish(rejected=rejected or {})


def write_annotated_dataset(out: str, prefix: str = "a", seed: int = 0, **settings: Any) -> Snapshot:
    """Writes a finished dataset as an annotation leaves it: token shards, target shards, two rejected documents.

    Args:
        out: The dataset's directory.
        prefix: What names of shards and ids of documents begin with: shard `a0` holds parts of the documents `a0-0`,
            `a0-1`, `a0-3`, ...
        seed: Of windows and targets.
        settings: Those of the identity that differ.
    """
    rng = np.random.default_rng(seed)
    corpus = CorpusInfo(num_files=3, size_bytes=300, fingerprint=prefix)
    of_corpus = {"corpus": corpus, "corpus_licence": "PSF-2.0", "held_out": 0.1}
    identity = dataclasses.replace(IDENTITY, **{**of_corpus, **settings})
    writer = DatasetWriter(out, identity, environment={"dtype": "float32"})
    for index, split in enumerate((*SPLITS[:1], *SPLITS)):
        name = f"{prefix}{index}"
        windows = name_documents(random_windows(rng, [64, 40, 64, 20]), name)
        writer.write(windows, random_targets(rng, windows), split=split, name=name)
        write_shard(out, identity.shard_metadata("tokens", split), f"{name}-tokens", windows, None)
    lines = [{"source": f"/corpus/{prefix}0.txt#{n}", "reason": "bad", "raw": f"rejected {n}"} for n in (0, 99)]
    rejected = "".join(json.dumps(line) + "\n" for line in lines).encode()
    storage.create(storage.join(out, rejected_path(f"{prefix}0-0000", rejected)), rejected)
    return writer.finish(rejected={"bad": 2})


def full_description(windows: Windows, targets: Targets, groups: SourceGroups) -> dict[str, Any]:
    """The fields of a record that an annotation measures: vocabulary statistics, sources, environment and timings."""
    mass = {1: 100, 4: 140, 16: 160, 64: 170, 512: 180}
    vocabulary = VocabularyStatistics(
        rows=200,
        mass_steps={k: STEPS_PER_UNIT * sum_of_mass for k, sum_of_mass in mass.items()},
        unique_steps={n: int(STEPS_PER_UNIT * 200 * n**0.8) for n in (1, 5, 25, 100)},
    )
    return {
        "statistics": Statistics.of(windows, targets, vocabulary=vocabulary),
        "by_source": summarize_by_source(windows, targets, groups),
        "environment": {"device": {"kind": "cpu", "model": "a core"}},
        "timings": {
            "score_seconds": 2.0,
            "forward_seconds": 1.5,
            "encode_seconds": 0.5,
            "finish_seconds": 0.25,
            "ended_at": "2026-01-01T00:00:00+00:00",
        },
    }


def name_documents(windows: Windows, name: str) -> Windows:
    """The same windows, where every third part continues the document of the part before it."""
    parts = []
    for index, part in enumerate(windows.parts):
        first = index - (index % 3 == 2)
        source = f"/corpus/{name}.txt#{first}"
        parts.append(dataclasses.replace(part, id=f"{name}-{first}", source=source, offset=int(first != index)))
    return dataclasses.replace(windows, parts=tuple(parts))
