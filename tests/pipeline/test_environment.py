"""The resolution of `auto` from the settings and the corpus."""

import shutil
from typing import Any

import pytest

from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.environment import resolve_projection
from logitcask.schemas.format.metadata import TeacherInfo

CONFIG = AnnotateConfig(corpus=("texts",), teacher="teacher", out="out")
LARGE_BYTES = 1 << 30


def teacher(vocab_size: int) -> TeacherInfo:
    return TeacherInfo(
        name="t",
        fingerprint="f",
        vocab_size=vocab_size,
        dtype="float32",
        architecture="a",
        num_parameters=1,
        licence=None,
        final_logit_softcap=None,
    )


def projection(vocab_size: int, corpus_bytes: int = 0, **begun: Any) -> dict[str, Any]:
    return resolve_projection(CONFIG, {"device": "cpu", **begun}, teacher(vocab_size), corpus_bytes)


def kernel(vocab_size: int, corpus_bytes: int, **begun: Any) -> str:
    return projection(vocab_size, corpus_bytes, **begun)["kernel"]


@pytest.mark.parametrize(("vocab_size", "rows"), [(262_144, 512), (49_152, 1024), (1000, 1024), (10_000_000, 8)])
def test_a_chunk_of_logits_takes_at_most_half_a_gibibyte(vocab_size: int, rows: int) -> None:
    assert projection(vocab_size)["row_chunk"] == rows
    assert rows * vocab_size * 4 <= 1 << 29


def test_a_resumed_dataset_keeps_its_chunk_size() -> None:
    assert projection(262_144, row_chunk=256)["row_chunk"] == 256


def test_small_corpora_and_small_vocabularies_are_not_compiled() -> None:
    assert kernel(262_144, 10_000) == "plain"
    assert kernel(1000, LARGE_BYTES) == "plain"


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_large_corpora_with_large_vocabularies_are_compiled() -> None:
    assert kernel(262_144, LARGE_BYTES) == "compiled"


def test_a_resumed_dataset_keeps_its_kernel() -> None:
    assert kernel(262_144, 10_000, kernel="compiled") == "compiled"
    assert kernel(262_144, LARGE_BYTES, kernel="plain") == "plain"
