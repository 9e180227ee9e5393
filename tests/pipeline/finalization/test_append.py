"""`annotate --append`: adds a corpus and leaves the old snapshot unchanged."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_job

from logitcask.pipeline.annotation import annotate_unit
from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.job import annotate
from logitcask.schemas.dataset.shard_view import open_shard
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot, load_snapshot, snapshot_numbers
from logitcask.schemas.errors import ConfigurationMismatchError, LogitcaskError, UsageError
from logitcask.schemas.maintenance.compact import compact
from logitcask.schemas.maintenance.select_forget import forget_documents
from logitcask.schemas.maintenance.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")


settings = partial(small_job.settings, corpus_license="PSF-2.0")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory, english: str) -> tuple[Path, Path]:
    """An old and a new corpus of eight documents each, with the same file names and ids."""
    found = []
    for number, name in enumerate(("old", "new")):
        directory = tmp_path_factory.mktemp(name)
        texts = [english[start : start + 200] for start in range(number * 9000, number * 9000 + 8 * 300, 300)]
        (directory / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + "{bad\n")
        found.append(directory)
    return found[0], found[1]


@pytest.fixture(scope="module")
def finished(corpora: tuple[Path, Path], tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    annotate(settings(corpora[0], tiny_teacher, out), quiet=True)
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def more(corpora: tuple[Path, Path], tiny_teacher: Path, out: Path) -> AnnotateConfig:
    return settings(corpora[1], tiny_teacher, out, append=True)


def tokens(snapshot: Snapshot, split: str) -> list[np.ndarray]:
    """The tokens of every window, in order."""
    found = []
    for entry in snapshot.shards(split):
        with open_shard(snapshot, entry) as shard:
            found += [shard.read(index, index + 1).windows.token for index in range(shard.num_windows)]
    return found


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_the_new_snapshot_adds_the_annotation_of_the_new_corpus_alone(
    out: Path, more: AnnotateConfig, corpora: tuple[Path, Path], tiny_teacher: Path, tmp_path: Path
) -> None:
    old, before = load_snapshot(str(out)), files(out)
    result = annotate(dataclasses.replace(more, corpus_license="CC0-1.0"), quiet=True)
    alone = annotate(settings(corpora[1], tiny_teacher, tmp_path / "alone"), quiet=True).snapshot
    both = result.snapshot
    assert (both.number, both.base, both.made_by, both.complete) == (2, 1, "append", True)
    for split in ("train", "held-out"):
        expected = [*tokens(old, split), *tokens(alone, split)]
        assert [one.tolist() for one in tokens(both, split)] == [one.tolist() for one in expected]
    assert both.total().statistics == old.total().statistics + alone.total().statistics
    assert both.num_documents_in == 18
    assert both.rejected == {"malformed_json": 2}
    assert both.identity.corpus_licence == "PSF-2.0 AND CC0-1.0"
    assert alone.identity.corpus is not None
    assert [one.fingerprint for one in both.identity.appended] == [alone.identity.corpus.fingerprint]
    assert verify(str(out)).faults == ()
    assert load_snapshot(str(out), 1) == old
    after = files(out)
    assert all(after[path] == data for path, data in before.items())


def test_repeating_either_command_does_nothing(out: Path, more: AnnotateConfig, corpora: tuple[Path, Path]) -> None:
    first = annotate(more, quiet=True)
    before = files(out)
    again = annotate(more, quiet=True)
    base = annotate(dataclasses.replace(more, corpus=(str(corpora[0]),), append=False), quiet=True)
    assert (again.num_units, base.num_units) == (0, 0)
    assert again.snapshot == base.snapshot == first.snapshot
    assert files(out) == before


@pytest.mark.slow
def test_an_interrupted_append_keeps_the_old_snapshot_and_resumes(
    out: Path, more: AnnotateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = load_snapshot(str(out))
    encode, calls = annotate_unit.encode_unit, []

    def dies(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise OSError("killed")
        return encode(*arguments)

    monkeypatch.setattr(annotate_unit, "encode_unit", dies)
    with pytest.raises(LogitcaskError):
        annotate(more, quiet=True)
    assert load_snapshot(str(out)) == old
    forget_documents(str(out), [_document(old)])
    with pytest.raises(LogitcaskError, match="an append is unfinished"):
        compact(str(out))
    monkeypatch.setattr(annotate_unit, "encode_unit", encode)
    both = annotate(more, quiet=True).snapshot
    assert (both.number, both.base, both.complete) == (3, 2, True)
    assert both.removed == {"forgotten": 1}
    compact(str(out))
    assert verify(str(out)).faults == ()


def _document(snapshot: Snapshot) -> str:
    with open_shard(snapshot, snapshot.shards("train")[0]) as shard:
        return shard.parts[0].id


@pytest.mark.slow
def test_forgotten_documents_do_not_come_back(out: Path, more: AnnotateConfig, corpora: tuple[Path, Path]) -> None:
    forgotten = _document(load_snapshot(str(out)))
    forget_documents(str(out), [forgotten])
    compact(str(out))
    command = dataclasses.replace(more, corpus=(str(corpora[0]),), append=False)
    assert annotate(command, quiet=True).snapshot == load_snapshot(str(out))
    assert annotate(dataclasses.replace(command, append=True), quiet=True).num_units == 0
    assert snapshot_numbers(str(out)) == [3]
    # The new corpus has another document with that id, which was not forgotten.
    both = annotate(more, quiet=True).snapshot
    ids = [part.id for entry in both.shards() for part in _parts(both, entry)]
    assert ids.count(forgotten) == 1


def _parts(snapshot: Snapshot, entry: ShardEntry) -> list:
    with open_shard(snapshot, entry) as shard:
        return [part for part in shard.parts if part.offset == 0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tau": 0.01}, r"--tau: 0\.001 in the output, 0\.01 now"),
        ({"window": 32}, "--window: 64 in the output, 32 now"),
        ({"temperatures": (2.0,)}, "--temperatures: None in the output"),
    ],
)
def test_other_settings_are_refused_naming_the_difference(
    out: Path, more: AnnotateConfig, changes: dict[str, Any], named: str
) -> None:
    before = files(out)
    with pytest.raises(ConfigurationMismatchError, match=named):
        annotate(dataclasses.replace(more, **changes), quiet=True)
    assert files(out) == before


def test_another_teacher_is_refused(out: Path, more: AnnotateConfig, tmp_path: Path) -> None:
    other = Path(shutil.copytree(more.teacher, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "query_pre_attn_scalar": 32}))
    with pytest.raises(ConfigurationMismatchError, match=r"the teacher .* is another one"):
        annotate(dataclasses.replace(more, teacher=str(other)), quiet=True)


def test_an_append_requires_a_dataset(more: AnnotateConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no dataset to append to"):
        annotate(dataclasses.replace(more, out=str(tmp_path / "nowhere")), quiet=True)
    assert not (tmp_path / "nowhere").exists()
