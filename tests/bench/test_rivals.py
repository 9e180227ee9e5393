"""The other formats of the bench decode to the targets that were encoded, within their precision."""

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
from repository import ROOT

from logitcask.schemas.format.targets import Targets

K, VOCAB_SIZE = 40, 100_000


@pytest.fixture(scope="module")
def rivals() -> ModuleType:
    path = ROOT / "bench" / "rivals.py"
    spec = importlib.util.spec_from_file_location("bench_rivals", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def targets() -> Targets:
    """30 rows of 40 entries with 90 % of the mass."""
    rng = np.random.default_rng(4)
    masses = 0.9 * rng.dirichlet(np.ones(K), 30)
    ids = np.sort(np.stack([rng.choice(VOCAB_SIZE, K, replace=False) for _ in range(30)]), axis=1)
    return Targets(
        head_ids=ids.ravel().astype(np.int32),
        head_log_probs=np.log(masses).ravel().astype(np.float32),
        head_offsets=np.arange(0, 30 * K + 1, K),
        log_tail=np.full(30, np.log(0.1), np.float32),
        log_next=np.full(30, -1, np.float32),
        entropy=None,
    )


def round_trip(encoding, targets: Targets) -> tuple[np.ndarray, np.ndarray, int]:
    """Ids and log-probabilities [T, K] by ascending id, and the number of bytes."""
    data = encoding.encode(np.arange(30, dtype=np.int32), targets)
    decoded = encoding.decode(data)
    assert np.array_equal(decoded.offsets, targets.head_offsets)
    ids, log_probs = decoded.ids.reshape(-1, K), decoded.log_probs.reshape(-1, K)
    order = np.argsort(ids, axis=1)
    return np.take_along_axis(ids, order, 1), np.take_along_axis(log_probs, order, 1), len(data)


def check(encoding, targets: Targets, tolerance_nats: float) -> None:
    ids, log_probs, _ = round_trip(encoding, targets)
    np.testing.assert_array_equal(ids.ravel(), targets.head_ids)
    np.testing.assert_allclose(log_probs.ravel(), targets.head_log_probs, atol=tolerance_nats)


@pytest.mark.parametrize("zstd_level", [None, 3])
def test_served_json_is_exact(rivals, targets, zstd_level):
    pieces = {int(token): " the" for token in targets.head_ids}
    check(rivals.ServedJson(pieces=pieces, zstd_level=zstd_level), targets, 0)


def test_plain_parquet_keeps_float32(rivals, targets):
    check(rivals.PlainParquet(dtype=np.float32), targets, 0)


def test_packed_fp16_is_exact_to_half_precision(rivals, targets):
    check(rivals.PackedFp16(k=K), targets, 8e-3)
    assert round_trip(rivals.PackedFp16(k=K), targets)[2] == 30 * (2 * K + K // 8 + 2 * K + 4)


def test_a_polynomial_with_one_term_per_value_is_exact(rivals, targets):
    """The only error is the rounding of the exact entries to bfloat16."""
    encoding = rivals.Polynomial(k=K, exact_k=K - 3, terms=(0, 1, "sqrt"), vocab_size=VOCAB_SIZE)
    check(encoding, targets, 0.02)


def test_presets_have_the_size_stated_in_the_distillkit_readme(rivals):
    """About 300 and 114 bytes per token with 16-bit ids."""
    for preset, stated in zip(rivals.distillkit_presets(1 << 16).values(), (300, 114), strict=True):
        size = 2 * preset.k + 2 * preset.exact_k + 4 * len(preset.terms)
        assert size == pytest.approx(stated, rel=0.05)


def test_counted_draws_are_exact(rivals):
    ids, counts, offsets = np.array([0, 131_071, 77]), np.array([1, 126, 3]), np.array([0, 2, 3])
    encoding = rivals.CountedDraws()
    decoded = encoding.decode_draws(encoding.encode_draws(ids, counts, offsets), 2, 127)
    np.testing.assert_array_equal(decoded.ids, ids)
    np.testing.assert_allclose(decoded.log_probs, np.log(counts / 127), rtol=1e-6)
    np.testing.assert_array_equal(decoded.offsets, offsets)
