"""Random teachers with an exactly known truncation, the dense float64 loss, a small dataset, a tiny student."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from random_shards import IDENTITY, TEACHER, write_random_dataset
from torch import Tensor
from train_command import train_words
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from logitcask.schemas import cli
from logitcask.schemas.format.metadata import Split, TokenizerInfo
from logitcask.schemas.format.scheme import TopKScheme
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


def _write_dataset(
    out: Path,
    shards: dict[Split, list[int]],
    seed: int = 0,
    tokenizer: TokenizerInfo | None = None,
    vocab_size: int = VOCAB_SIZE,
    extras: bool = False,
) -> str:
    """A dataset with shards of the given numbers of windows in each split; returns its URL.

    With `extras` also the entropy, two replicas of three draws from the tail, and the tail at temperature 2.
    """
    identity = dataclasses.replace(
        IDENTITY,
        tokenizer=tokenizer or _tokenizer_info(),
        teacher=dataclasses.replace(TEACHER, name="random", vocab_size=vocab_size, final_logit_softcap=None),
        scheme=TopKScheme(k=5),
        window_tokens=WINDOW_TOKENS,
        entropy=extras,
        corpus_licence="PSF-2.0",
    )
    lengths = {
        split: [[WINDOW_TOKENS - index % 3 for index in range(size)] for size in sizes]
        for split, sizes in shards.items()
    }
    further = {"num_samples": 2, "temperatures": (2.0,)} if extras else {}
    return write_random_dataset(
        str(out), lengths, seed=seed, identity=identity, longest_part=12, widths=range(5, 6), **further
    ).url


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
