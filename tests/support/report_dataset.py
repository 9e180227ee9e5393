"""A small dataset that tries what a report has to bear: markup as text, characters in pieces, rows without targets."""

import dataclasses

import numpy as np
from shards import commit

from logitcask.schemas.dataset import snapshot_writer
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.dataset.vocabulary import write_vocabulary
from logitcask.schemas.format.metadata import ShardMetadata, TeacherInfo, TokenizerInfo
from logitcask.schemas.format.scheme import ThresholdScheme
from logitcask.schemas.format.targets import Kind, Part, Targets, Windows
from logitcask.schemas.stats.by_source import SourceGroups, summarize_by_source
from logitcask.schemas.stats.outlier_windows import find_outliers
from logitcask.schemas.stats.target_statistics import Statistics
from logitcask.schemas.stats.vocabulary_statistics import STEPS_PER_UNIT, VocabularyStatistics

VOCAB_SIZE = 120
HOSTILE = "</script><img src=x onerror=alert(1)><!--"
HOSTILE_ID, NEWLINE_ID, FIRST_HALF, SECOND_HALF, REVERSED_ID = 5, 6, 7, 8, 9
WINDOW_TOKENS = 48
TOKENIZER = TokenizerInfo(
    name="words", fingerprint="f0", vocabulary_fingerprint="f1", vocab_size=VOCAB_SIZE, bos_id=2, eos_id=1
)
TEACHER = TeacherInfo(
    name="random/teacher",
    fingerprint="f2",
    vocab_size=VOCAB_SIZE,
    dtype="float32",
    architecture="RandomForCausalLM",
    num_parameters=10_000,
    licence="apache-2.0",
)
METADATA = ShardMetadata(
    kind="targets",
    split="train",
    window_tokens=WINDOW_TOKENS,
    tokenizer=TOKENIZER,
    teacher=TEACHER,
    scheme=ThresholdScheme(),
    has_entropy=True,
)


def pieces() -> list[bytes]:
    """Words; one is markup, one ends a line, two are the halves of é, one turns the direction of writing."""
    found = [f" word{i}".encode() for i in range(VOCAB_SIZE)]
    found[HOSTILE_ID], found[NEWLINE_ID] = HOSTILE.encode(), b"\n"
    found[FIRST_HALF], found[SECOND_HALF] = "é".encode()[:1], "é".encode()[1:]
    found[REVERSED_ID] = "\u202e".encode()
    return found


def random_windows(rng: np.random.Generator, num_windows: int, name: str) -> Windows:
    """Windows of two parts each; the first of all begins with markup, é in halves and two rows without a target."""
    lengths = [WINDOW_TOKENS - index % 3 for index in range(num_windows)]
    token = rng.integers(10, VOCAB_SIZE, sum(lengths)).astype(np.int32)
    token[:6] = [20, HOSTILE_ID, FIRST_HALF, SECOND_HALF, NEWLINE_ID, REVERSED_ID]
    kind = np.zeros(len(token), np.uint8)
    kind[24:26] = Kind.PROMPT
    part = np.concatenate([2 * index + (np.arange(n) >= 24) for index, n in enumerate(lengths)])
    return Windows(
        token=token,
        kind=kind,
        part=part.astype(np.int32),
        window_offsets=np.cumsum([0, *lengths]),
        parts=tuple(
            Part(id=f"{name}-{index}{HOSTILE}", source=f"corpus/{name}.txt#{index}", offset=0)
            for index in range(2 * num_windows)
        ),
    )


def random_targets(rng: np.random.Generator, windows: Windows) -> Targets:
    """Softmaxes of random logits; heads of 1 to 24 of the largest probabilities."""
    logits = 3 * rng.standard_normal((windows.num_positions, VOCAB_SIZE))
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    has_target = windows.has_target()
    widths = np.where(has_target, rng.integers(1, 25, windows.num_positions), 0)
    heads = [np.sort(np.argsort(-row)[:width]) for row, width in zip(log_probs, widths, strict=True)]
    mass = [np.exp(row[head]).sum() for row, head in zip(log_probs, heads, strict=True)]
    label = np.take_along_axis(log_probs, np.maximum(windows.next_token(), 0)[:, None], 1)[:, 0]
    return Targets(
        head_ids=np.concatenate(heads).astype(np.int32),
        head_log_probs=np.concatenate([row[head] for row, head in zip(log_probs, heads, strict=True)]).astype("f4"),
        head_offsets=np.cumsum([0, *widths]).astype(np.int64),
        log_tail=np.where(has_target, np.log1p(-np.array(mass)), np.nan).astype(np.float32),
        log_next=np.where(windows.has_label(), label, np.nan).astype(np.float32),
        entropy=np.where(has_target, -(np.exp(log_probs) * log_probs).sum(1), np.nan).astype(np.float32),
        top1_ids=np.where(has_target, log_probs.argmax(1), -1).astype(np.int32),
    )


def write_dataset(out: str, *, windows_per_shard: int = 6, vocabulary: bool = True) -> Snapshot:
    """A finished dataset of a train and a held-out shard."""
    rng = np.random.default_rng(8)
    identity = dataclasses.replace(Identity.of_shards(METADATA), corpus_licence="PSF-2.0")
    if vocabulary:
        write_vocabulary(out, pieces(), TOKENIZER.vocabulary_fingerprint)
    records = [_write_shard(rng, out, split, windows_per_shard) for split in ("train", "held-out")]
    return snapshot_writer.write_snapshot(
        out,
        complete=True,
        identity=identity,
        records=records,
        num_documents_in=sum(record.num_documents for record in records) + 1,
        rejected={"malformed_json": 1},
    )


def _write_shard(rng: np.random.Generator, out: str, split: str, num_windows: int) -> UnitRecord:
    windows = random_windows(rng, num_windows, split)
    targets = random_targets(rng, windows)
    groups = SourceGroups(prefixes={f"corpus/{split}": split})
    vocabulary = VocabularyStatistics(
        rows=100,
        mass_steps={k: STEPS_PER_UNIT * (30 + 10 * i) for i, k in enumerate((1, 4, 16, 64))},
        unique_steps={n: int(STEPS_PER_UNIT * 100 * n**0.8) for n in (1, 5, 25, 100)},
    )
    return commit(
        out,
        dataclasses.replace(METADATA, split=split),  # pyright: ignore
        f"shard-{split}",
        windows,
        targets,
        statistics=Statistics.of(windows, targets, vocabulary=vocabulary),
        by_source=summarize_by_source(windows, targets, groups),
        extremes=find_outliers(f"shard-{split}", windows, targets),
    )
