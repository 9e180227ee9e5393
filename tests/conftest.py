"""Fixtures shared by all packages: a tokenizer and a teacher, created for each session."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The time of an example depends on the machine, not on the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# Tiny models gain nothing from threads, and lose much where cores are shared; processes of the tests inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read once, when Triton is first imported: without a CUDA device its interpreter runs the kernels.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps files of earlier runs out of this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_messages() -> Iterator[None]:
    """Restores the log handlers that a command sets when a test runs it in this process."""
    logger = logging.getLogger("logitcask")
    handlers, propagate = logger.handlers[:], logger.propagate
    yield
    logger.handlers[:] = handlers
    logger.propagate = propagate


@pytest.fixture(scope="session")
def english() -> str:
    """About 800 kB of English prose that every CPython carries."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


@pytest.fixture(scope="session")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory, english: str) -> Path:
    """A directory with `tokenizer.model`: a SentencePiece unigram model of 1,000 pieces."""
    import sentencepiece

    directory = tmp_path_factory.mktemp("sentencepiece")
    (directory / "corpus.txt").write_text(english[:200_000])
    sentencepiece.SentencePieceTrainer.train(
        input=str(directory / "corpus.txt"),
        model_prefix=str(directory / "tokenizer"),
        vocab_size=1000,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        byte_fallback=True,
        num_threads=1,
        minloglevel=2,
    )
    return directory


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory, sentencepiece_model: Path) -> Path:
    """A random Gemma-2 (four layers, 1,000 ids, soft-caps on) with a SentencePiece tokenizer, as a directory."""
    import shutil

    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    directory = tmp_path_factory.mktemp("tiny-gemma2")
    config = Gemma2Config(
        vocab_size=1000,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=32,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        # Weights drawn wide enough that next-token distributions are far from uniform.
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Gemma2ForCausalLM(config).save_pretrained(directory)
    shutil.copy(sentencepiece_model / "tokenizer.model", directory)
    return directory
