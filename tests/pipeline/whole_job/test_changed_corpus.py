"""The second day: a corpus is known by its content, and only what is new is annotated."""

import contextlib
import dataclasses
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import echo_scorer
import pytest
import small_job
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logitcask.pipeline import corpus_work
from logitcask.pipeline.annotation import annotate_unit
from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.job import JobResult
from logitcask.pipeline.tokenization import tokenize_unit
from logitcask.schemas.dataset.appends import unfinished_appends
from logitcask.schemas.dataset.shard_view import open_shard
from logitcask.schemas.dataset.snapshot import Snapshot, load_snapshot
from logitcask.schemas.errors import CorpusError, LogitcaskError
from logitcask.schemas.maintenance.compact import compact
from logitcask.schemas.maintenance.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def line(name: str) -> str:
    return json.dumps({"id": name, "text": f"The document with the name {name} says nothing else."}) + "\n"


@pytest.fixture(autouse=True)
def _echo(monkeypatch: pytest.MonkeyPatch) -> None:
    echo_scorer.replace_teachers(monkeypatch)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    directory = tmp_path / "corpus"
    (directory / "sub").mkdir(parents=True)
    (directory / "a.jsonl").write_text("".join(map(line, ("a1", "a2", "a3"))))
    (directory / "sub" / "b.jsonl.zst").write_bytes(zstandard.compress((line("b1") + line("b2")).encode()))
    (directory / "c.txt").write_text("The third file is one document of plain text.")
    return directory


@pytest.fixture
def job(corpus: Path, tiny_teacher: Path, tmp_path: Path) -> AnnotateConfig:
    """A finished job of six documents."""
    config = small_job.settings(corpus, tiny_teacher, tmp_path / "out")
    small_job.run(config)
    return config


def append(job: AnnotateConfig, **changes: object) -> JobResult:
    return small_job.run(dataclasses.replace(job, append=True, **changes))  # pyright: ignore[reportArgumentType]


def documents(snapshot: Snapshot) -> list[str]:
    """Ids of the documents in the shards, each as often as it is there."""
    found: Counter[str] = Counter()
    for entry in snapshot.shards():
        with open_shard(snapshot, entry) as shard:
            found.update(part.id for part in shard.parts if part.offset == 0)
    return sorted(found.elements())


FIRST = ["a1", "a2", "a3", "b1", "b2", "c.txt#1"]


def touch(corpus: Path) -> Path:
    for path in corpus.rglob("*.*"):
        os.utime(path, ns=(1, 1))
    return corpus


def copy(corpus: Path) -> Path:
    shutil.copytree(corpus, corpus.parent / "elsewhere")
    shutil.rmtree(corpus)
    return corpus.parent / "elsewhere"


def rename_all(corpus: Path) -> Path:
    for index, path in enumerate(sorted(corpus.rglob("*.*"))):
        path.rename(corpus / f"renamed-{index}{''.join(path.suffixes)}")
    return corpus


@pytest.mark.parametrize("move", [touch, copy, rename_all, shutil.rmtree])
@pytest.mark.parametrize("appends", [False, True])
def test_a_known_corpus_is_nothing_to_do_wherever_it_is(
    job: AnnotateConfig, corpus: Path, move: Callable[[Path], Path | None], appends: bool
) -> None:
    before = load_snapshot(job.out)
    moved = move(corpus) or corpus
    result = small_job.run(dataclasses.replace(job, corpus=(str(moved),), append=appends))
    assert result.num_units == 0
    assert result.snapshot == load_snapshot(job.out) == before


def test_only_what_is_new_is_annotated_and_counted(job: AnnotateConfig, corpus: Path) -> None:
    with (corpus / "a.jsonl").open("a") as file:
        file.write(line("a4"))
    with (corpus / "sub" / "b.jsonl.zst").open("ab") as file:
        file.write(zstandard.compress(line("b3").encode()))
    (corpus / "new.jsonl").write_text(line("n1") + line("a2"))
    (corpus / "c.txt").rename(corpus / "d.txt")
    with pytest.raises(CorpusError, match=r"1 added: new\.jsonl; 2 grown: a\.jsonl, sub/b\.jsonl\.zst.*add --append"):
        small_job.run(job)
    result = append(job)
    assert documents(result.snapshot) == sorted([*FIRST, "a4", "b3", "n1"])
    assert (result.num_added_documents, result.num_known_documents) == (3, 1)
    assert (result.corpus.known, len(result.corpus.new)) == (("d.txt",), 3)
    assert result.snapshot.num_documents_in == 9
    assert verify(job.out).faults == ()
    for again in (job, dataclasses.replace(job, append=True)):
        assert small_job.run(again).num_units == 0
    assert load_snapshot(job.out) == result.snapshot


@pytest.mark.slow
def test_a_rewritten_file_adds_its_new_documents(job: AnnotateConfig, corpus: Path) -> None:
    (corpus / "a.jsonl").write_text("".join(map(line, ("a0", "a2", "a3"))))
    with pytest.raises(CorpusError, match=r"1 changed: a\.jsonl"):
        small_job.run(job)
    result = append(job)
    assert documents(result.snapshot) == sorted([*FIRST, "a0"])
    assert append(job).num_units == 0
    assert small_job.run(job).num_units == 0


@pytest.mark.slow
def test_a_file_that_grew_in_the_middle_of_a_line_is_read_whole(job: AnnotateConfig, corpus: Path) -> None:
    (corpus / "e.jsonl").write_text(line("e1") + line("e2")[:20])
    append(job)
    (corpus / "e.jsonl").write_text(line("e1") + line("e2") + line("e3"))
    assert documents(append(job).snapshot) == sorted([*FIRST, "e1", "e2", "e3"])


@pytest.mark.slow
def test_duplicates_are_kept_on_request(job: AnnotateConfig, corpus: Path) -> None:
    (corpus / "new.jsonl").write_text(line("n1") + line("a2"))
    result = append(job, allow_duplicates=True)
    assert documents(result.snapshot) == sorted([*FIRST, "n1", "a2"])


@pytest.mark.slow
def test_rows_of_a_grown_file_keep_counting(job: AnnotateConfig, corpus: Path) -> None:
    for name, write in (("e.jsonl", str.encode), ("f.jsonl.zst", lambda text: zstandard.compress(text.encode()))):
        with (corpus / name).open("ab") as file:
            file.write(write('{"text": "The first row."}\n{"text": "The second row."}'))
        append(job)
        with (corpus / name).open("ab") as file:
            file.write(write(f'\n{{"text": "The third row of {name}."}}\n'))
        assert documents(append(job, allow_duplicates=True).snapshot).count(f"{name}#3") == 1


def interrupt(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object], units: int) -> None:
    """Runs a job in which all units after the first few fail."""
    done: list[str] = []
    with monkeypatch.context() as patch:
        for module, name in ((annotate_unit, "encode_unit"), (tokenize_unit, "write_unit_hashes")):
            patch.setattr(module, name, partial(_fails_after, getattr(module, name), done, units))
        with pytest.raises(LogitcaskError):
            run()


def _fails_after(real: Callable, done: list[str], units: int, *arguments: object) -> object:
    if len(done) == units:
        raise OSError("interrupted")
    done.append("")
    return real(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("units", [0, 1, 2])
def test_an_unfinished_job_continues_elsewhere_and_reports_what_is_new(
    corpus: Path, tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, units: int
) -> None:
    job = small_job.settings(corpus, tiny_teacher, tmp_path / "out", attempts=1)
    interrupt(monkeypatch, lambda: small_job.run(job), units)
    moved = dataclasses.replace(job, corpus=(str(copy(corpus)),))
    (tmp_path / "elsewhere" / "new.jsonl").write_text(line("n1"))
    with (tmp_path / "elsewhere" / "a.jsonl").open("a") as file:
        file.write(line("a4"))
    with pytest.raises(CorpusError, match=r"1 added: new\.jsonl; 1 grown: a\.jsonl"):
        small_job.run(moved)
    assert documents(load_snapshot(job.out)) == FIRST
    assert documents(append(moved).snapshot) == sorted([*FIRST, "a4", "n1"])


@pytest.mark.slow
def test_a_removed_file_fails_only_the_units_that_need_it(
    corpus: Path, tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_work, "group_slices", partial(corpus_work.group_slices, unit_bytes=100))
    job = small_job.settings(corpus, tiny_teacher, tmp_path / "out", attempts=1)
    interrupt(monkeypatch, lambda: small_job.run(job), 0)
    saved = (corpus / "c.txt").read_bytes()
    (corpus / "c.txt").unlink()
    with pytest.raises(CorpusError, match=r"1 unit\(s\) .* missing or changed: c\.txt\. Restore"):
        small_job.run(job)
    snapshot = load_snapshot(job.out)
    assert (snapshot.complete, documents(snapshot)) == (False, FIRST[:-1])
    (corpus / "c.txt").write_bytes(saved)
    result = small_job.run(job)
    assert result.snapshot.complete
    assert documents(result.snapshot) == FIRST


@pytest.mark.slow
def test_an_append_whose_files_vanish_is_planned_again(
    job: AnnotateConfig, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (corpus / "n.jsonl").write_text(line("n1"))
    (corpus / "m.jsonl").write_text(line("m1"))
    interrupt(monkeypatch, lambda: append(job, attempts=1), 0)
    assert len(unfinished_appends(load_snapshot(job.out))) == 1
    (corpus / "m.jsonl").unlink()
    result = append(job)
    assert documents(result.snapshot) == sorted([*FIRST, "n1"])
    assert unfinished_appends(result.snapshot) == []
    compact(job.out)
    assert append(job).num_units == 0


@pytest.mark.slow
def test_an_append_keeps_what_an_interrupted_one_has_annotated(
    job: AnnotateConfig, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (corpus / "n.jsonl").write_text(line("n1"))
    interrupt(monkeypatch, lambda: append(job, attempts=1), 1)
    (corpus / "n.jsonl").rename(corpus / "o.jsonl")
    (corpus / "p.jsonl").write_text(line("p1"))
    result = append(job)
    assert documents(result.snapshot) == sorted([*FIRST, "n1", "p1"])
    assert sum("tokens/train" in name or "tokens/held-out" in name for name in small_job.files(job.out)) <= 2 * 4


@pytest.mark.slow
def test_a_dataset_without_records_of_its_files_is_known_by_its_documents(job: AnnotateConfig, corpus: Path) -> None:
    for path in ("corpus", "tokens"):
        shutil.rmtree(Path(job.out) / path)
    touch(corpus)
    (corpus / "new.jsonl").write_text(line("n1"))
    nowhere = dataclasses.replace(job, corpus=(str(corpus / "nowhere"),))
    assert small_job.run(nowhere).num_units == 0
    result = append(job)
    assert documents(result.snapshot) == sorted([*FIRST, "n1"])
    assert result.num_known_documents == 6
    assert not [name for name in small_job.files(job.out) if name.startswith("segments/")]
    assert append(job).num_units == 0


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "grow", "touch", "move", "remove", "remount", "run", "append", "append", "interrupt"]),
        st.integers(0, 5),
    ),
    min_size=4,
    max_size=9,
)


@pytest.mark.slow
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS, st.integers(0, 3))
def test_any_changes_annotate_each_document_exactly_once(
    tiny_teacher: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    operations: list[tuple[str, int]],
    first_units: int,
) -> None:
    home = tmp_path_factory.mktemp("any")
    world = _World(home)
    for _ in range(3):
        world.change("add", 0)
    job = small_job.settings(world.corpus, tiny_teacher, home / "out", attempts=1)
    with monkeypatch.context() as patch:
        patch.setattr(corpus_work, "group_slices", partial(corpus_work.group_slices, unit_bytes=150))
        interrupt(patch, lambda: small_job.run(job), first_units)
        for operation, number in [*operations, ("append", 0)]:
            job = dataclasses.replace(job, corpus=(str(world.corpus),))
            if operation == "run":
                with contextlib.suppress(CorpusError):
                    small_job.run(job)
            elif operation == "append":
                if not any(world.corpus.iterdir()):
                    world.change("add", 0)
                result = append(job)
                found = Counter(documents(result.snapshot))
                assert max(found.values()) == 1
                assert set(world.documents()) <= found.keys() <= world.ever
                assert append(job).num_units == 0
            elif operation == "interrupt":
                with contextlib.suppress(pytest.fail.Exception, CorpusError):
                    interrupt(patch, partial(append, job), number)
            else:
                world.change(operation, number)


class _World:
    """A corpus of documents that are all different, and what has ever been in it."""

    def __init__(self, home: Path) -> None:
        self._home, self._count = home, 0
        self.corpus = home / "corpus"
        self.corpus.mkdir()
        self.ever: set[str] = set()

    def documents(self) -> list[str]:
        return [json.loads(one)["id"] for path in self.corpus.iterdir() for one in self._lines(path)]

    def change(self, operation: str, number: int) -> None:
        self._count += 1
        paths = sorted(self.corpus.iterdir())
        if operation == "add" or not paths:
            path = self.corpus / f"f{self._count}.jsonl{'.zst' if number % 2 else ''}"
            self._append(path, 1 + number)
            return
        path = paths[number % len(paths)]
        match operation:
            case "grow":
                self._append(path, 1 + number)
            case "touch":
                os.utime(path, ns=(self._count, self._count))
            case "move":
                path.rename(path.with_name(f"m{self._count}{''.join(path.suffixes)}"))
            case "remove":
                path.unlink()
            case "remount":
                elsewhere = self._home / f"mount{self._count}"
                shutil.copytree(self.corpus, elsewhere)
                shutil.rmtree(self.corpus)
                self.corpus = elsewhere

    def _append(self, path: Path, count: int) -> None:
        names = [f"{self._count}-{index}" for index in range(count)]
        self.ever |= set(names)
        data = "".join(map(line, names)).encode()
        with path.open("ab") as file:
            file.write(zstandard.compress(data) if path.suffix == ".zst" else data)

    @staticmethod
    def _lines(path: Path) -> list[str]:
        data = path.read_bytes()
        if path.suffix == ".zst":
            data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
        return data.decode().splitlines()


@pytest.mark.slow
def test_a_corpus_in_an_object_store_is_known_by_its_content(
    tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("moto")
    s3fs = pytest.importorskip("s3fs")
    from object_store import environment, s3_server

    with s3_server() as server:
        for name, value in environment(server).items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3 = s3fs.S3FileSystem()
        s3.mkdir("bucket")
        s3.pipe_file("bucket/corpus/a.jsonl", (line("a1") + line("a2")).encode())
        s3.pipe_file("bucket/corpus/sub/b.jsonl.zst", zstandard.compress(line("b1").encode()))
        job = dataclasses.replace(
            small_job.settings(Path(), tiny_teacher, "s3://bucket/out"), corpus=("s3://bucket/corpus",)
        )
        first = small_job.run(job).snapshot
        # Copied, and one file uploaded in parts, so that its ETag is another one.
        s3.copy("bucket/corpus/", "bucket/elsewhere/", recursive=True)
        with s3.open("bucket/corpus/a.jsonl", "wb", block_size=5 << 20) as file:
            file.write((line("a1") + line("a2")).encode())
        moved = dataclasses.replace(job, corpus=("s3://bucket/elsewhere",))
        for again in (job, moved, dataclasses.replace(moved, append=True)):
            assert small_job.run(again).num_units == 0
        s3.pipe_file("bucket/elsewhere/a.jsonl", "".join(map(line, ("a1", "a2", "a3"))).encode())
        s3.pipe_file("bucket/elsewhere/n.jsonl", (line("n1") + line("b1")).encode())
        with pytest.raises(CorpusError, match=r"1 added: n\.jsonl; 1 grown: a\.jsonl"):
            small_job.run(moved)
        result = append(moved)
        assert documents(first) == ["a1", "a2", "b1"]
        assert documents(result.snapshot) == ["a1", "a2", "a3", "b1", "n1"]
        s3.rm("bucket/elsewhere", recursive=True)
        assert small_job.run(moved).num_units == append(moved).num_units == 0
    s3fs.S3FileSystem.clear_instance_cache()
