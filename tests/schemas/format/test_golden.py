"""Shards of every past format version stay readable; tests/golden/<version>/ holds them and their decoded values."""

import importlib.util
import json
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from repository import GOLDEN

from logitcask.schemas.fingerprints import digest
from logitcask.schemas.format.metadata import FORMAT_VERSION
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.targets import Targets
from logitcask.schemas.format.writer import encode_shard
from logitcask.schemas.maintenance.verify_shards import check_rows

SHARDS = sorted(GOLDEN.glob("v*/*.parquet"))
NAMES = [str(path.relative_to(GOLDEN).with_suffix("")) for path in SHARDS]
CURRENT = GOLDEN / f"v{FORMAT_VERSION}"


@pytest.fixture(params=SHARDS, ids=NAMES)
def shard(request) -> Path:
    return request.param


@pytest.fixture
def truth(shard) -> dict[str, Any]:
    return json.loads(shard.with_suffix(".json").read_text())


@pytest.fixture
def reader(shard):
    footer_digest = written_with(shard.parent)["shards"][shard.stem]["footer_digest"]
    with ShardReader(str(shard), footer_digest=footer_digest) as opened:
        yield opened


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_generator", CURRENT / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written_with(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "written_with.json").read_text())


def test_the_bytes_of_a_golden_shard_are_those_of_its_digest(shard):
    assert digest(shard.read_bytes()) == written_with(shard.parent)["shards"][shard.stem]["digest"]


def test_metadata_of_a_golden_shard_are_read(reader, truth):
    assert reader.metadata.to_json() == truth["metadata"]
    for name in ("id", "source", "offset"):
        assert [getattr(part, name) for part in reader.parts] == truth["parts"][name]
    assert reader.window_lengths.tolist() == truth["windows"]["lengths"]
    assert reader.window_hashes == truth["windows"]["hashes"]


def test_windows_of_a_golden_shard_are_read(reader, truth):
    windows = reader.read().windows
    assert windows.window_index().tolist() == truth["window"]
    assert windows.part.tolist() == truth["document"]
    assert windows.token.tolist() == truth["token"]
    assert windows.kind.tolist() == truth["kind"]


def test_targets_of_a_golden_shard_are_read(reader, truth):
    targets = reader.read().targets
    if truth["targets"] is None:
        assert targets is None
    else:
        check_targets(targets, truth["targets"])


def test_a_golden_shard_breaks_no_rule(reader):
    found, _ = check_rows(reader)
    assert found == []


def test_one_window_of_a_golden_shard_is_read_alone(reader):
    whole, start = reader.read(), int(reader.window_lengths[0])
    one, stop = reader.read(1, 2), int(reader.window_lengths[:2].sum())
    np.testing.assert_array_equal(one.windows.token, whole.windows.token[start:stop])
    if whole.targets is not None:
        np.testing.assert_array_equal(one.targets.head_log_probs, whole.targets.select_rows(start, stop).head_log_probs)


def check_targets(targets: Targets, truth: dict[str, Any]) -> None:
    """Integers and stored steps must be equal; renormalized values may differ by the rounding of float32."""
    check_lists(targets.head_ids, targets.head_offsets, truth["ids"])
    np.testing.assert_allclose(targets.head_log_probs, floats([*chain(*truth["log_probs"])]), rtol=2e-7, atol=1e-8)
    np.testing.assert_allclose(targets.log_tail, floats(truth["log_tail"]), rtol=2e-7, atol=1e-8)
    np.testing.assert_array_equal(targets.log_next, floats(truth["log_next"]))
    if truth["entropy"] is None:
        assert targets.entropy is None
    else:
        np.testing.assert_array_equal(targets.entropy, floats(truth["entropy"]))
    for sample, lists in zip(targets.tail_samples, truth["tail_samples"], strict=True):
        check_lists(sample.ids, sample.offsets, lists)
    assert sorted(targets.tempered_log_tails) == sorted(map(float, truth["tempered_log_tails"]))
    for temperature, log_tail in truth["tempered_log_tails"].items():
        np.testing.assert_array_equal(targets.tempered_log_tails[float(temperature)], floats(log_tail))


def check_lists(flat: np.ndarray, offsets: np.ndarray, truth: list[list[int]]) -> None:
    assert flat.tolist() == [*chain(*truth)]
    assert np.diff(offsets).tolist() == [len(row) for row in truth]


def floats(values: list[float | str | None]) -> np.ndarray:
    """null becomes NaN (no value), "-inf" a zero tail."""
    return np.array([np.nan if value is None else float(value) for value in values])


def test_todays_writer_reproduces_the_golden_bytes(generator):
    recorded = written_with(CURRENT)["pyarrow"]
    if pa.__version__ != recorded:
        pytest.skip(f"written with pyarrow {recorded}; {pa.__version__} may compress differently")
    for name, inputs in generator.shards().items():
        assert encode_shard(*inputs).data == (CURRENT / f"{name}.parquet").read_bytes(), name


def test_every_golden_shard_of_this_version_has_a_generator(generator):
    assert sorted(generator.shards()) == sorted(path.stem for path in CURRENT.glob("*.parquet"))


def test_the_golden_values_cover_the_edges_of_the_format():
    truth = json.loads((GOLDEN / "v1" / "extremes.json").read_text())["targets"]
    assert truth["log_tail"].count("-inf") == 1
    assert min(truth["log_next"], key=lambda nats: nats or 0) == -65535 / 2048
    assert max(truth["entropy"], key=lambda nats: nats or 0) == 65535 / 2048
