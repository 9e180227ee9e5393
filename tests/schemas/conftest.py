"""Random windows, targets and datasets as fixtures (`random_shards` in tests/support makes them)."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_shards import metadata_of, random_targets, random_windows, write_annotated_dataset, write_random_dataset

from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.format.writer import EncodedShard, encode_shard


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261122)


@pytest.fixture
def windows(rng: np.random.Generator) -> Windows:
    return random_windows(rng, [64, 50, 64, 1, 33])


@pytest.fixture
def targets(rng: np.random.Generator, windows: Windows) -> Targets:
    return random_targets(rng, windows)


@pytest.fixture
def metadata() -> ShardMetadata:
    return metadata_of()


@pytest.fixture
def encoded(windows: Windows, targets: Targets, metadata: ShardMetadata) -> EncodedShard:
    return encode_shard(windows, targets, metadata)


@pytest.fixture
def small_dataset(tmp_path: Path) -> Snapshot:
    """A finished dataset of three target shards and two rejected documents, in `tmp_path / "out"`."""
    return write_random_dataset(str(tmp_path / "out"), rejected={"empty": 2})


@pytest.fixture(scope="session")
def annotated_dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of one dataset as an annotation leaves it, which no test changes."""
    out = str(tmp_path_factory.mktemp("annotated"))
    write_annotated_dataset(out)
    return out


@pytest.fixture
def annotated_copy(annotated_dataset: str, tmp_path: Path) -> str:
    """URL of a copy of it, which a test may change."""
    return str(shutil.copytree(annotated_dataset, tmp_path / "annotated"))


@pytest.fixture(scope="session")
def contents() -> Callable[[Any], Any]:
    """Turns arrays, wherever they are held, into values that `==` compares to the last bit; all NaN are equal."""

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
