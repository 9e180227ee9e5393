"""Random teachers with an exactly known truncation, the dense float64 loss, a small dataset, a tiny student."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from train_command import train_words
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from logitcask.schemas import cli, storage
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.layout import record_path, shard_path
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.snapshot_writer import write_snapshot
from logitcask.schemas.format.metadata import ShardMetadata, TeacherInfo, TokenizerInfo
from logitcask.schemas.format.scheme import TopKScheme
from logitcask.schemas.format.targets import Kind, Part, TailSample, Targets, Windows
from logitcask.schemas.format.writer import encode_shard
from logitcask.student.init import make_student
from logitcask.student.losses.targets import RaggedTargets
from logitcask.student.model.student_card import StudentCard
from logitcask.teacher.text.tokenizers import load_tokenizer


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models run several times faster on one thread, above all if other test processes run too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Case:
    """A teacher's full distribution [T, V], which ids are in each row's head, and the targets a shard would hold."""

    teacher: Tensor
    is_head: Tensor
    targets: RaggedTargets

    def dense_truncated_kl(self, logits_TV: Tensor) -> Tensor:
        """Σ over the buckets of t (log t − log p), by dense masks and sums; float64[T]."""
        student_TV = logits_TV.double()[:, : self.teacher.shape[1]].softmax(-1)
        head_T = torch.where(self.is_head, self.teacher * (self.teacher.log() - student_TV.log()), 0)
        teacher_other_T = torch.where(self.is_head, 0, self.teacher).sum(-1)
        student_other_T = torch.where(self.is_head, 0, student_TV).sum(-1)
        has_other_T = ~self.is_head.all(-1)
        safe_T = torch.where(has_other_T, student_other_T, 1)
        other_T = torch.where(has_other_T, teacher_other_T, 1)
        tail_T = torch.where(has_other_T, other_T * (other_T.log() - safe_T.log()), 0)
        return (head_T.sum(-1) + tail_T).where(self.targets.has_target, 0)

    def dense_kl(self, logits_TV: Tensor) -> Tensor:
        """The full KL(teacher ‖ student), float64[T]."""
        log_student_TV = logits_TV.double().log_softmax(-1)
        return (self.teacher * (self.teacher.log() - log_student_TV)).sum(-1)


def _truncate(teacher_TV: Tensor, widths: list[int], masked: list[bool] | None = None) -> Case:
    """Heads of the given widths (the largest probabilities) of a dense teacher; masked rows have no target."""
    is_head_TV = torch.zeros_like(teacher_TV, dtype=torch.bool)
    for row, width in enumerate(widths):
        is_head_TV[row, teacher_TV[row].topk(width).indices] = True
    masked_T = torch.tensor(masked or [False] * len(widths))
    is_head_TV[masked_T] = False
    rows, ids = is_head_TV.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(widths))
    log_tail_T = teacher_TV.where(~is_head_TV, 0).sum(-1).log()
    return Case(
        teacher=teacher_TV,
        is_head=is_head_TV,
        targets=RaggedTargets(
            head_ids=ids,
            head_log_probs=teacher_TV[rows, ids].log(),
            head_offsets=torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)]),
            log_tail=log_tail_T.where(~masked_T, float("nan")),
            vocab_size=teacher_TV.shape[1],
        ),
    )


@pytest.fixture(scope="session")
def truncate() -> Callable[..., Case]:
    return _truncate


@pytest.fixture(scope="session")
def random_case() -> Callable[..., Case]:
    """`random_case(widths, vocab_size, seed, masked=None)`: a random peaked teacher, truncated."""

    def make(widths: list[int], vocab_size: int, seed: int = 0, masked: list[bool] | None = None) -> Case:
        generator = torch.Generator().manual_seed(seed)
        logits_TV = 3 * torch.randn(len(widths), vocab_size, generator=generator, dtype=torch.float64)
        return _truncate(logits_TV.softmax(-1), widths, masked)

    return make


VOCAB_SIZE = 48
WINDOW_TOKENS = 24


def _tokenizer_info(fingerprint: str = "f" * 32, vocabulary: str = "a" * 32) -> TokenizerInfo:
    return TokenizerInfo(
        name="made up",
        fingerprint=fingerprint,
        vocabulary_fingerprint=vocabulary,
        vocab_size=VOCAB_SIZE - 2,
        bos_id=2,
        eos_id=1,
    )


def _random_window(generator: np.random.Generator, name: str, num_positions: int, vocab_size: int) -> Windows:
    """One window of three parts; the first begins with two rows that have no target."""
    cuts = np.sort(generator.choice(np.arange(3, num_positions - 2), 2, replace=False))
    part = np.searchsorted(cuts, np.arange(num_positions), side="right").astype(np.int32)
    kind = np.full(num_positions, Kind.TRAIN, np.uint8)
    kind[:2] = Kind.PROMPT
    return Windows(
        token=generator.integers(3, vocab_size - 2, num_positions).astype(np.int32),
        kind=kind,
        part=part,
        window_offsets=np.array([0, num_positions]),
        parts=tuple(Part(id=f"{name}-{index}", source="made up", offset=0) for index in range(3)),
    )


def _random_targets(generator: np.random.Generator, windows: Windows, vocab_size: int, extras: bool = False) -> Targets:
    """A random teacher's five largest probabilities and the rest.

    With `extras` also the entropy, two replicas of three draws from the tail, and the tail at temperature 2.
    """
    num_positions = windows.num_positions
    log_probs = torch.from_numpy(3 * generator.standard_normal((num_positions, vocab_size))).log_softmax(-1)
    masked = (~windows.has_target()).tolist()
    targets = _truncate(log_probs.exp(), [5] * num_positions, masked).targets
    log_next = log_probs[torch.arange(num_positions), torch.from_numpy(windows.next_token()).long()]
    return Targets(
        head_ids=targets.head_ids.numpy().astype(np.int32),
        head_log_probs=targets.head_log_probs.numpy().astype(np.float32),
        head_offsets=targets.head_offsets.numpy(),
        log_tail=targets.log_tail.numpy().astype(np.float32),
        log_next=np.where(windows.has_label(), log_next.numpy(), np.nan).astype(np.float32),
        entropy=_entropy(log_probs, windows) if extras else None,
        tail_samples=tuple(_draws(generator, windows, targets, vocab_size) for _ in range(2)) if extras else (),
        tempered_log_tails={2.0: _log_tail_at(2.0, log_probs, targets)} if extras else {},
    )


def _entropy(log_probs: Tensor, windows: Windows) -> np.ndarray:
    entropy = -(log_probs.exp() * log_probs).sum(-1).numpy()
    return np.where(windows.has_target(), entropy, np.nan).astype(np.float32)


def _draws(generator: np.random.Generator, windows: Windows, targets: RaggedTargets, vocab_size: int) -> TailSample:
    ids = []
    for row in np.flatnonzero(windows.has_target()):
        head = targets.head_ids[targets.head_offsets[row] : targets.head_offsets[row + 1]].numpy()
        ids.append(np.sort(generator.choice(np.setdiff1d(np.arange(vocab_size), head), 3)))
    offsets = np.concatenate([[0], np.cumsum(3 * windows.has_target())])
    return TailSample(ids=np.concatenate(ids).astype(np.int32), offsets=offsets)


def _log_tail_at(temperature: float, log_probs: Tensor, targets: RaggedTargets) -> np.ndarray:
    tempered = (log_probs / temperature).log_softmax(-1)
    tempered = tempered.index_put((targets.head_rows(), targets.head_ids), torch.tensor(-torch.inf).double())
    log_tail = tempered.logsumexp(-1).where(targets.has_target, torch.nan)
    return log_tail.numpy().astype(np.float32)


def _write_dataset(
    out: Path,
    shards: dict[str, list[int]],
    seed: int = 0,
    tokenizer: TokenizerInfo | None = None,
    vocab_size: int = VOCAB_SIZE,
    extras: bool = False,
) -> str:
    """A dataset with the given numbers of windows per shard and split, written by the library itself."""
    generator = np.random.default_rng(seed)
    records = []
    for split, sizes in shards.items():
        for number, size in enumerate(sizes):
            windows = Windows.concatenate(
                [
                    _random_window(generator, f"{split}-{number}-{index}", WINDOW_TOKENS - index % 3, vocab_size)
                    for index in range(size)
                ]
            )
            metadata = ShardMetadata(
                kind="targets",
                split=split,  # type: ignore[arg-type]
                window_tokens=WINDOW_TOKENS,
                tokenizer=tokenizer or _tokenizer_info(),
                teacher=TeacherInfo(
                    name="random", fingerprint="e" * 32, vocab_size=vocab_size, dtype="float32",
                    architecture="none", num_parameters=0, licence="apache-2.0",
                ),
                scheme=TopKScheme(k=5),
                has_entropy=extras,
                corpus_licence="PSF-2.0",
            )  # fmt: skip
            shard = encode_shard(windows, _random_targets(generator, windows, vocab_size, extras), metadata)
            name = f"{number:06d}-{split}"
            storage.create(str(out / shard_path("targets", split, name)), shard.data)
            records.append(UnitRecord(name=name, kind="targets", split=split).of_shard(shard))  # type: ignore[arg-type]
            storage.create_json(str(out / record_path("targets", split, name)), records[-1].to_json())
    write_snapshot(str(out), complete=True, identity=Identity(), records=records, num_documents_in=0, rejected={})
    return str(out)


@pytest.fixture(scope="session")
def write_dataset() -> Callable[..., str]:
    return _write_dataset


@pytest.fixture(scope="session")
def tokenizer_info() -> Callable[..., TokenizerInfo]:
    return _tokenizer_info


@pytest.fixture(scope="session")
def dataset_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two training shards (7 and 5 windows) and a held-out one (3)."""
    return _write_dataset(tmp_path_factory.mktemp("dataset"), {"train": [7, 5], "held-out": [3]})


def _tiny_student(vocab_size: int = VOCAB_SIZE, seed: int = 0) -> PreTrainedModel:
    config = Gemma2Config(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=8,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Gemma2ForCausalLM(config)


@pytest.fixture(scope="session")
def tiny_student() -> Callable[..., PreTrainedModel]:
    """`tiny_student()`: a random two-layer Gemma-2 over the made-up vocabulary; equal each time."""
    return _tiny_student


@pytest.fixture
def student_directory(tmp_path: Path) -> Path:
    """The tiny student as `student init` would leave it, without tokenizer files."""
    directory = tmp_path / "student"
    _tiny_student().save_pretrained(directory)
    StudentCard(
        tokenizer=_tokenizer_info(), initialisation={"method": "scratch"}, licences={"initial_weights": None}
    ).write(directory)
    return directory


@pytest.fixture(scope="session")
def pruned_student(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the tiny teacher's four layers, with its tokenizer."""
    directory = tmp_path_factory.mktemp("init") / "student"
    make_student.prune_teacher(str(tiny_teacher), directory, keep_layers=[0, 3])
    return directory


@pytest.fixture(scope="session")
def run_dataset(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random targets over the tiny teacher's vocabulary: six training windows, two held-out ones."""
    out, tokenizer = tmp_path_factory.mktemp("run-dataset"), load_tokenizer(tiny_teacher).info
    return _write_dataset(out, {"train": [6], "held-out": [2]}, tokenizer=tokenizer, vocab_size=1000)


@pytest.fixture(scope="session")
def richer_dataset(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Like `run_dataset`, smaller, with sampled tails and tails at temperature 2."""
    out, tokenizer = tmp_path_factory.mktemp("richer-dataset"), load_tokenizer(tiny_teacher).info
    return _write_dataset(out, {"train": [2], "held-out": [1]}, tokenizer=tokenizer, vocab_size=1000, extras=True)


@pytest.fixture(scope="session")
def finished_run(run_dataset: str, pruned_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of three steps, which tests must not change."""
    run = tmp_path_factory.mktemp("run") / "run"
    assert cli.main(train_words(run_dataset, pruned_student, run, "--save-every", "2")) == 0
    return run
