"""A dataset to report on, its shards as they are stored, and a student that scores it."""

import json

import pytest
import report_dataset

from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.inspection.window import dataset_vocabulary
from logitcask.schemas.report.gathering import SampleSize, gather


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory):
    return report_dataset.write_dataset(str(tmp_path_factory.mktemp("report") / "cask"))


@pytest.fixture(scope="session")
def report(snapshot):
    """A report of all windows, whole."""
    return gather(snapshot, dataset_vocabulary(snapshot), SampleSize(num_windows=12, num_tokens=12 * 48))


@pytest.fixture(scope="session")
def stored(snapshot):
    """Windows and targets of every shard, by the shard's name."""
    found = {}
    for entry in snapshot.shards():
        with ShardReader(snapshot.shard_url(entry)) as reader:
            found[entry.name] = reader.read()
    return found


@pytest.fixture
def write_run(tmp_path):
    """Writes the files of a training run; returns its directory."""

    def write(lines, results=None):
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
        if results:
            (tmp_path / "results.json").write_text(json.dumps(results))
        return tmp_path

    return write
