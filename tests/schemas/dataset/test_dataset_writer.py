"""A dataset is written from windows and targets in a few lines, once, and survives a killed program."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from random_shards import IDENTITY, TOKENIZER, random_targets, random_windows

from logitcask.schemas import DatasetWriter
from logitcask.schemas.dataset import dataset_writer, snapshot_writer
from logitcask.schemas.dataset.layout import read_configuration
from logitcask.schemas.dataset.shard_view import open_shard, stored_record
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.dataset.vocabulary import has_vocabulary, read_vocabulary
from logitcask.schemas.errors import ConfigurationMismatchError, ForeignOutputError, UsageError, VocabularyError
from logitcask.schemas.format.scheme import ThresholdSamplingScheme
from logitcask.schemas.format.targets import Kind
from logitcask.schemas.maintenance.verify import verify
from logitcask.schemas.stats.target_statistics import Statistics


@pytest.fixture
def out(tmp_path) -> str:
    return str(tmp_path / "out")


def files(out: str) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(Path(out).rglob("*")) if path.is_file()}


def test_a_written_dataset_is_complete_sound_and_read_back(out, windows, targets):
    with DatasetWriter(out, IDENTITY, environment={"dtype": "float32"}) as writer:
        writer.write(windows, targets)
        writer.write(windows, targets, split="held-out", environment={"device": "cpu"})
    snapshot = load_snapshot(out)
    assert snapshot == writer.snapshot
    assert (snapshot.complete, snapshot.identity, snapshot.made_by) == (True, IDENTITY, "annotate")
    assert [(entry.split, entry.name) for entry in snapshot.shards()] == [("held-out", "000001"), ("train", "000000")]
    assert snapshot.num_documents_in == 2 * windows.num_documents()
    assert snapshot.splits["train"].statistics == Statistics.of(windows, targets)
    assert snapshot.splits["train"].extremes
    assert verify(out).faults == ()
    configuration = read_configuration(out)
    assert configuration is not None
    assert configuration.environment == {"dtype": "float32"}
    held_out, train = snapshot.shards()
    assert stored_record(snapshot, held_out).environment == {"device": "cpu"}
    with open_shard(snapshot, train) as shard:
        np.testing.assert_array_equal(shard.read().windows.token, windows.token)
        assert shard.metadata == IDENTITY.shard_metadata("targets", "train")


def test_pieces_make_windows_readable_as_text(out, windows, targets):
    with DatasetWriter(out, IDENTITY, pieces=[b" a"] * TOKENIZER.vocab_size) as writer:
        writer.write(windows, targets)
    assert read_vocabulary(out, TOKENIZER.vocabulary_fingerprint).text([0, 1]) == " a a"


def test_without_pieces_there_is_no_vocabulary(out, windows, targets):
    with DatasetWriter(out, IDENTITY) as writer:
        writer.write(windows, targets)
    assert not has_vocabulary(out)


def test_rejected_documents_are_counted(out, windows, targets):
    writer = DatasetWriter(out, IDENTITY)
    writer.write(windows, targets)
    snapshot = writer.finish(rejected={"empty": 2})
    assert (snapshot.num_rejected, snapshot.num_documents_in) == (2, windows.num_documents() + 2)


@pytest.mark.parametrize("killed_in", ["commit_shard", "publish"])
def test_a_killed_program_resumes_with_the_same_calls(out, windows, targets, monkeypatch, tmp_path, killed_in):
    def program(out: str) -> None:
        with DatasetWriter(out, IDENTITY) as writer:
            for split in ("train", "held-out"):
                writer.write(windows, targets, split=split)

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    program(str(tmp_path / "undisturbed"))
    with monkeypatch.context() as patch:
        patch.setattr(dataset_writer, killed_in, killed)
        with pytest.raises(Killed):
            program(out)
    program(out)
    assert files(out) == files(str(tmp_path / "undisturbed"))


def test_after_an_error_nothing_is_published(out, windows, targets):
    def program() -> None:
        with DatasetWriter(out, IDENTITY) as writer:
            writer.write(windows, targets)
            writer.write(windows.select(0, 1), targets)

    with pytest.raises(UsageError, match="212 targets"):
        program()
    assert not (Path(out) / "snapshots").exists()


def test_a_finished_dataset_is_not_written_to(out, windows, targets):
    with DatasetWriter(out, IDENTITY) as writer:
        writer.write(windows, targets)
    with pytest.raises(UsageError, match="holds a finished dataset"):
        DatasetWriter(out, IDENTITY)


def test_only_one_of_two_writers_publishes(out, windows, targets):
    first, second = DatasetWriter(out, IDENTITY), DatasetWriter(out, IDENTITY)
    for writer in (first, second):
        writer.write(windows, targets)
    first.finish()
    with pytest.raises(UsageError, match="another program has finished"):
        second.finish()
    assert snapshot_writer.load_snapshot(out) == first.snapshot


def test_the_versions_of_this_release_are_filled_in(out):
    DatasetWriter(out, dataclasses.replace(IDENTITY, algorithm_version=None, format_version=None))
    configuration = read_configuration(out)
    assert configuration is not None
    assert configuration.identity == IDENTITY


def test_another_identity_or_foreign_files_are_refused(out, tmp_path):
    DatasetWriter(out, IDENTITY)
    with pytest.raises(ConfigurationMismatchError, match="window_tokens: 64 in the output, 128 now"):
        DatasetWriter(out, dataclasses.replace(IDENTITY, window_tokens=128))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/thesis.tex").write_text("…")
    with pytest.raises(ForeignOutputError):
        DatasetWriter(str(tmp_path / "thesis"), IDENTITY)


def test_an_identity_without_a_scheme_is_refused_before_any_write(out):
    with pytest.raises(UsageError, match="without scheme"):
        DatasetWriter(out, dataclasses.replace(IDENTITY, scheme=None))
    assert not Path(out).exists()


def test_a_dataset_without_windows_is_refused(out):
    with pytest.raises(UsageError, match="no windows were written"):
        DatasetWriter(out, IDENTITY).finish()


def test_other_bytes_under_the_name_of_a_shard_are_refused(out, windows, targets, rng):
    DatasetWriter(out, IDENTITY).write(windows, targets)
    other = random_windows(rng, [10])
    with pytest.raises(ConfigurationMismatchError, match="holds another train shard '000000'"):
        DatasetWriter(out, IDENTITY).write(other, random_targets(rng, other))


@pytest.mark.parametrize(
    ("settings", "change", "error"),
    [
        ({"window_tokens": 32}, {}, "a window of 64 positions, where window_tokens is 32"),
        ({}, {"entropy": None}, "entropies are stored, but these targets have none"),
        ({"scheme": ThresholdSamplingScheme(replicas=2)}, {}, "0 tail samples, where the scheme has 2"),
        ({}, {"log_tail": None}, "is of kind train, which needs a target"),
    ],
)
def test_targets_that_do_not_fit_the_identity_are_refused(out, windows, targets, settings, change, error):
    if "log_tail" in change:
        change = {"log_tail": np.full_like(targets.log_tail, np.nan)}
    writer = DatasetWriter(out, dataclasses.replace(IDENTITY, **settings))
    with pytest.raises(UsageError, match=error):
        writer.write(windows, dataclasses.replace(targets, **change))


def test_targets_of_other_windows_are_refused(out, windows, targets):
    with pytest.raises(UsageError, match="212 targets for windows of 64 positions"):
        DatasetWriter(out, IDENTITY).write(windows.select(0, 1), targets)


def test_a_target_on_a_context_row_is_refused(out, windows, targets):
    context = dataclasses.replace(windows, kind=np.full_like(windows.kind, Kind.CONTEXT))
    with pytest.raises(UsageError, match="is of kind context, which has no target"):
        DatasetWriter(out, IDENTITY).write(context, targets)


def test_an_id_beyond_the_vocabulary_is_refused(out, windows, targets):
    beyond = dataclasses.replace(windows, token=windows.token + TOKENIZER.vocab_size)
    with pytest.raises(VocabularyError):
        DatasetWriter(out, IDENTITY).write(beyond, targets)
