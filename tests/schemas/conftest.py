"""Random windows and targets: no model, but every rule of the format holds."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shards import commit

from logitcask.schemas import storage
from logitcask.schemas.dataset import snapshot_writer
from logitcask.schemas.dataset.identity import CorpusInfo, Identity
from logitcask.schemas.dataset.layout import write_configuration
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.format.metadata import ShardMetadata, TeacherInfo, TokenizerInfo
from logitcask.schemas.format.scheme import ThresholdScheme
from logitcask.schemas.format.targets import Kind, Part, Targets, Windows
from logitcask.schemas.format.writer import EncodedShard, encode_shard

VOCAB_SIZE = 300


def make_windows(rng: np.random.Generator, lengths: list[int]) -> Windows:
    """Windows of the given lengths, cut into parts of 1 to 40 rows, a tenth of the rows without a target."""
    num_positions = sum(lengths)
    part, parts = np.empty(num_positions, np.int32), []
    start = 0
    for length in lengths:
        end = start + length
        while start < end:
            stop = min(end, start + int(rng.integers(1, 41)))
            part[start:stop] = len(parts)
            parts.append(Part(id=f"document-{len(parts)}", source=f"corpus/ö.txt#{len(parts)}", offset=0))
            start = stop
    kinds = rng.choice([Kind.TRAIN, Kind.CONTEXT, Kind.PROMPT, Kind.GENERATED], num_positions, p=[0.8, 0.05, 0.05, 0.1])
    return Windows(
        token=rng.integers(0, VOCAB_SIZE, num_positions, dtype=np.int32),
        kind=kinds.astype(np.uint8),
        part=part,
        window_offsets=np.cumsum([0, *lengths]).astype(np.int64),
        parts=tuple(parts),
    )


def make_targets(rng: np.random.Generator, windows: Windows, vocab_size: int = VOCAB_SIZE) -> Targets:
    """Exact targets, in float64 before they are stored: heads of 1 to 40 of the largest ids of random softmaxes."""
    logits = 3 * rng.standard_normal((windows.num_positions, vocab_size))
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    has_target, has_label = windows.has_target(), windows.has_label()
    ids, values, widths, log_tail = [], [], [], []
    for row, target in zip(log_probs, has_target, strict=True):
        width = int(rng.integers(1, 41)) if target else 0
        head = np.sort(np.argsort(-row, kind="stable")[:width])
        ids.append(head)
        values.append(row[head])
        widths.append(width)
        log_tail.append(np.log(np.exp(np.delete(row, head)).sum()) if target else np.nan)
    next_log_probs = np.take_along_axis(log_probs, np.maximum(windows.next_token(), 0)[:, None], 1)[:, 0]
    entropy = -(np.exp(log_probs) * log_probs).sum(1)
    return Targets(
        head_ids=np.concatenate(ids).astype(np.int32),
        head_log_probs=np.concatenate(values).astype(np.float32),
        head_offsets=np.cumsum([0, *widths]).astype(np.int64),
        log_tail=np.array(log_tail, np.float32),
        log_next=np.where(has_label, next_log_probs, np.nan).astype(np.float32),
        entropy=np.where(has_target, entropy, np.nan).astype(np.float32),
        top1_ids=np.where(has_target, log_probs.argmax(1), -1).astype(np.int32),
    )


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


def target_metadata(split: str = "train") -> ShardMetadata:
    return ShardMetadata(
        kind="targets",
        split=split,  # pyright: ignore[reportArgumentType]
        window_tokens=64,
        tokenizer=TOKENIZER,
        teacher=TEACHER,
        scheme=ThresholdScheme(),
        has_entropy=True,
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261122)


@pytest.fixture
def windows(rng: np.random.Generator) -> Windows:
    return make_windows(rng, [64, 50, 64, 1, 33])


@pytest.fixture
def targets(rng: np.random.Generator, windows: Windows) -> Targets:
    return make_targets(rng, windows)


@pytest.fixture
def metadata() -> ShardMetadata:
    return target_metadata()


@pytest.fixture
def encoded(windows: Windows, targets: Targets, metadata: ShardMetadata) -> EncodedShard:
    return encode_shard(windows, targets, metadata)


@pytest.fixture
def make_dataset(rng: np.random.Generator) -> Callable[[str], Snapshot]:
    """Writes a finished dataset of three target shards under a URL."""

    def make(out: str) -> Snapshot:
        identity = Identity.of_shards(target_metadata())
        write_configuration(out, identity=identity, environment={})
        records = [write_unit(rng, out, f"unit-{i}", split) for i, split in enumerate(("train", "train", "held-out"))]
        return snapshot_writer.write_snapshot(
            out,
            complete=True,
            identity=identity,
            records=records,
            num_documents_in=sum(record.num_documents for record in records) + 2,
            rejected={"empty": 2},
        )

    return make


def write_unit(rng: np.random.Generator, out: str, name: str, split: str) -> UnitRecord:
    windows = make_windows(rng, [64, 40])
    return commit(out, target_metadata(split), name, windows, make_targets(rng, windows))


def name_documents(windows: Windows, prefix: str) -> Windows:
    """The same windows; every third part goes on with the document of the part before it."""
    parts = []
    for index, part in enumerate(windows.parts):
        first = index - (index % 3 == 2)
        parts.append(
            dataclasses.replace(
                part, id=f"{prefix}-{first}", source=f"/corpus/{prefix}.txt#{first}", offset=int(first != index)
            )
        )
    return dataclasses.replace(windows, parts=tuple(parts))


@pytest.fixture(scope="session")
def make_whole_dataset() -> Callable[..., Snapshot]:
    """Writes a finished dataset as an annotation leaves it: token shards, records, a rejected document."""

    def make(out: str, prefix: str = "a", seed: int = 0, **settings: Any) -> Snapshot:
        rng = np.random.default_rng(seed)
        corpus = CorpusInfo(num_files=3, size_bytes=300, fingerprint=prefix)
        identity = dataclasses.replace(
            Identity.of_shards(target_metadata()),
            corpus=corpus,
            **{"corpus_licence": "PSF-2.0", "held_out": 0.1} | settings,
        )
        write_configuration(out, identity=identity, environment={"dtype": "float32"})
        records = []
        for index, split in enumerate(("train", "train", "held-out")):
            name = f"{prefix}{index}"
            windows = name_documents(make_windows(rng, [64, 40, 64, 20]), name)
            metadata = dataclasses.replace(
                target_metadata(split), corpus_licence=identity.corpus_licence, has_entropy=bool(identity.entropy)
            )
            records.append(commit(out, metadata, name, windows, make_targets(rng, windows)))
            commit(out, of_tokens(metadata), f"{name}-tokens", windows, None)
        lines = [{"source": f"/corpus/{prefix}0.txt#{n}", "reason": "bad", "raw": f"rejected {n}"} for n in (0, 99)]
        rejected = "".join(json.dumps(line) + "\n" for line in lines).encode()
        storage.create(storage.join(out, "rejected", f"{prefix}0-0000.jsonl"), rejected)
        return snapshot_writer.write_snapshot(
            out,
            complete=True,
            identity=identity,
            records=records,
            num_documents_in=sum(record.num_documents for record in records) + 2,
            rejected={"bad": 2},
        )

    return make


@pytest.fixture(scope="session")
def whole_dataset(tmp_path_factory: pytest.TempPathFactory, make_whole_dataset: Callable) -> Path:
    """One such dataset; tests work on `whole_copy`."""
    out = tmp_path_factory.mktemp("whole")
    make_whole_dataset(str(out))
    return out


@pytest.fixture
def whole_copy(whole_dataset: Path, tmp_path: Path) -> str:
    return str(shutil.copytree(whole_dataset, tmp_path / "whole"))


def of_tokens(metadata: ShardMetadata) -> ShardMetadata:
    """What the token shard of a target shard says of itself."""
    return dataclasses.replace(metadata, kind="tokens", teacher=None, scheme=None, has_entropy=False)


@pytest.fixture(scope="session")
def contents() -> Callable[[Any], Any]:
    """Turns arrays, wherever they are held, into what `==` compares to the last bit; all NaN are one."""

    def of(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            if value.dtype.kind == "f":
                value = np.where(np.isnan(value), value.dtype.type(np.nan), value)
            return value.dtype.str, value.shape, value.tobytes()
        if dataclasses.is_dataclass(value):
            return {one.name: of(getattr(value, one.name)) for one in dataclasses.fields(value)}
        if isinstance(value, dict):
            return {key: of(one) for key, one in value.items()}
        return [of(one) for one in value] if isinstance(value, list | tuple) else value

    return of
