"""The whole job: real English through a tiny teacher, truly aligned, exactly once, however often it is interrupted."""

import dataclasses
import gzip
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_job import settings

from logitcask.pipeline.annotation import annotate_unit
from logitcask.pipeline.commands import summary
from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.execution.background_run import UnitFailedError
from logitcask.pipeline.job import JobResult, annotate
from logitcask.schemas import cli
from logitcask.schemas.dataset.snapshot import complete_snapshot, load_snapshot
from logitcask.schemas.errors import (
    ConfigurationMismatchError,
    CorpusError,
    CorruptShardError,
    ForeignOutputError,
    IncompleteDatasetError,
    NonFiniteError,
    TeacherError,
    TokenizerError,
    UsageError,
    VocabularyError,
)
from logitcask.schemas.format.reader import Block, ShardReader
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.inspection.summary import describe
from logitcask.schemas.inspection.summary_view import print_summary
from logitcask.schemas.maintenance.verify import verify
from logitcask.schemas.stats.by_source import SourceSummary
from logitcask.schemas.stats.outlier_windows import MAX_OUTLIERS, MIN_ROWS
from logitcask.schemas.stats.vocabulary_statistics import VocabularyStatistics
from logitcask.teacher.scoring.registry import SCORERS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")


def run(config: AnnotateConfig) -> JobResult:
    return annotate(config, quiet=True)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, english: str) -> Path:
    """40 documents, some longer than a window, and one bad line."""
    directory = tmp_path_factory.mktemp("corpus")
    texts = [english[start : start + 20 + start % 330] for start in range(0, 7800, 200)]
    lines = [json.dumps({"text": text}) for text in texts]
    (directory / "a.jsonl").write_text("\n".join([*lines[:20], "{bad", *lines[20:]]))
    (directory / "b.md").write_text(english[20_000:20_300])
    return directory


@pytest.fixture(scope="module")
def finished(corpus: Path, tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> JobResult:
    """A finished job; tests that change its files work on a copy."""
    return run(settings(corpus, tiny_teacher, tmp_path_factory.mktemp("finished") / "out"))


@pytest.fixture
def out(finished: JobResult, tmp_path: Path) -> Path:
    """A copy of a finished dataset."""
    return Path(shutil.copytree(finished.out, tmp_path / "out"))


def shards(out: Path | str) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(Path(out).glob("t*/*/*.parquet"))}


def blocks(out: str) -> Iterator[Block]:
    snapshot = load_snapshot(out)
    for entry in snapshot.shards():
        with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
            yield reader.read()


def test_every_position_equals_a_plain_forward_of_its_part_alone(finished: JobResult, tiny_teacher: Path) -> None:
    """Float32. Tolerances are half a step of each quantiser, and 2 % for what renormalising a target may move."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_teacher, dtype=torch.float32)
    num_positions = 0
    for block in blocks(finished.out):
        windows, targets = block.windows, block.targets
        assert targets is not None
        for part in range(len(windows.parts)):
            rows = np.flatnonzero(windows.part == part)
            with torch.inference_mode():
                logits_TV = model(torch.from_numpy(windows.token[rows].astype(np.int64))[None]).logits[0]
            log_probs_TV = logits_TV.double().log_softmax(-1).numpy()
            check_rows(windows, targets, rows, log_probs_TV)
            num_positions += len(rows)
    assert num_positions == finished.snapshot.total().num_positions > 2000


def check_rows(windows: Windows, targets: Targets, rows: np.ndarray, log_probs_TV: np.ndarray) -> None:
    for index, row in enumerate(rows):
        log_probs_V, probs_V = log_probs_TV[index], np.exp(log_probs_TV[index])
        head = slice(targets.head_offsets[row], targets.head_offsets[row + 1])
        ids = targets.head_ids[head]
        largest = np.sort(np.argsort(-log_probs_V, kind="stable")[: len(ids)])
        assert set(ids) ^ set(largest) <= set(np.flatnonzero(np.abs(probs_V / 1e-3 - 1) < 1e-3))
        assert len(ids) == pytest.approx((probs_V >= 1e-3).sum(), abs=1) or len(ids) == 128
        # One shift a row for head and tail alike: decoding renormalises them together.
        shift = targets.log_tail[row] - np.log1p(-probs_V[ids].sum())
        assert abs(shift) < 0.02
        u = (np.sqrt(1 - 4 * log_probs_V[ids]) - 1) / 2
        half_step = np.where(u < 255 / 64, (1 + 2 * u) / 128, np.inf)
        assert (np.abs(targets.head_log_probs[head] - log_probs_V[ids] - shift) < half_step + 1e-3).all()
        entropy = -(probs_V * log_probs_V).sum()
        assert targets.entropy is not None
        assert targets.entropy[row] == pytest.approx(entropy, abs=1 / 4096 + 1e-4)
        if index + 1 < len(rows):
            expected = log_probs_V[windows.token[rows[index + 1]]]
            assert targets.log_next[row] == pytest.approx(expected, abs=1 / 4096 + 2e-4)
        else:
            assert np.isnan(targets.log_next[row])


def test_documents_in_are_annotated_plus_rejected(finished: JobResult) -> None:
    snapshot = finished.snapshot
    assert snapshot.complete
    assert snapshot.num_documents_in == 41
    assert snapshot.rejected == {"malformed_json": 1}
    assert snapshot.total().num_documents == 40
    assert snapshot.splits["held-out"].num_documents > 0
    assert verify(finished.out).faults == ()


def test_two_runs_give_byte_identical_shards(
    finished: JobResult, corpus: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    again = run(settings(corpus, tiny_teacher, tmp_path / "again"))
    assert shards(again.out) == shards(finished.out)
    assert len(shards(again.out)) == 2 * finished.snapshot.total().num_shards > 8


def test_running_a_finished_job_again_does_nothing(out: Path, corpus: Path, tiny_teacher: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    result = run(settings(corpus, tiny_teacher, out))
    assert (result.num_units, result.num_annotated_positions) == (0, 0)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_job_goes_on_wherever_it_was_cut_short(
    out: Path, finished: JobResult, corpus: Path, tiny_teacher: Path
) -> None:
    records = sorted(out.glob("targets/train/*.json"))
    records[0].unlink()  # between the shard and its record
    records[1].with_suffix(".parquet").unlink()  # a shard lost later
    for path in (records[2], records[2].with_suffix(".parquet"), *out.glob("tokens/units/*"), *out.glob("rejected/*")):
        path.unlink()
    shutil.rmtree(out / "snapshots")
    result = run(settings(corpus, tiny_teacher, out))
    assert result.num_units == 1 + 3
    assert shards(out) == shards(finished.out)
    assert result.snapshot.complete
    assert verify(str(out)).faults == ()


def test_what_each_source_holds_travels_to_inspect_and_adds_up_to_the_whole(
    finished: JobResult, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = inspected(finished.out, capsys)
    sources, total = shown["sources"], shown["total"]
    assert sources.keys() == {"a.jsonl", "b.md"}
    for count in ("tokens", "documents", "targets", "labels"):
        assert sum(source[count] for source in sources.values()) == total[count]
        assert all(source[count] > 0 for source in sources.values())
    whole = finished.snapshot.total()
    merged = sum(whole.by_source.values(), SourceSummary())
    assert merged.statistics == dataclasses.replace(whole.statistics, wide=VocabularyStatistics())


def test_the_most_unusual_windows_travel_to_inspect(finished: JobResult, capsys: pytest.CaptureFixture[str]) -> None:
    shown = inspected(finished.out, capsys)["outliers"]
    losses, entropies = window_means(finished, "log_next"), window_means(finished, "entropy")
    for measure, means, sign in (
        ("highest_loss", losses, -1),
        ("lowest_loss", losses, 1),
        ("highest_entropy", entropies, -1),
    ):
        found = [(one["shard"], one["window"]) for one in shown[measure]]
        assert len(found) == len(set(found)) == MAX_OUTLIERS
        # What is stored is rounded to 1/2048 nat.
        expected = sorted(means.values(), key=lambda mean: sign * mean)[:MAX_OUTLIERS]
        assert [means[window] for window in found] == pytest.approx(expected, abs=1e-3)
        assert [one["mean_nats"] for one in shown[measure]] == pytest.approx(expected, abs=1e-3)


def inspected(out: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert cli.main(["inspect", out, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def window_means(finished: JobResult, quantity: str) -> dict[tuple[str, int], float]:
    """The mean of a stored quantity over each window that is long enough to count, by shard and index."""
    means = {}
    for entry, block in zip(finished.snapshot.shards(), blocks(finished.out), strict=True):
        for window, (start, stop) in enumerate(itertools.pairwise(block.windows.window_offsets.tolist())):
            values = np.abs(getattr(block.targets, quantity)[start:stop])
            if (~np.isnan(values)).sum() >= MIN_ROWS:
                means[entry.name, window] = float(np.nanmean(values))
    return means


@pytest.mark.slow
def test_lost_token_shards_are_made_again_where_they_are_needed(
    out: Path, finished: JobResult, corpus: Path, tiny_teacher: Path
) -> None:
    needed = sorted(out.glob("targets/train/*.parquet"))[0]
    needed.unlink()
    needed.with_suffix(".json").unlink()
    for path in out.glob("tokens/*/*.parquet"):
        path.unlink()
    result = run(settings(corpus, tiny_teacher, out))
    assert result.num_units == 1
    assert shards(out) == shards(finished.out)
    assert verify(str(out)).faults == ()


def test_a_unit_that_workers_died_of_is_left_out_until_it_is_asked_for(
    finished: JobResult, corpus: Path, tiny_teacher: Path, tmp_path: Path, out: Path, leave_lease: Any
) -> None:
    unit = sorted(out.glob("targets/train/*.parquet"))[1]
    unit.unlink()
    unit.with_suffix(".json").unlink()
    for number in range(3):
        leave_lease(unit.stem, "elsewhere:7:1", number)
    shutil.move(tmp_path / "attempts", out / "attempts")
    result = run(settings(corpus, tiny_teacher, out))
    assert result.quarantined.keys() == {unit.stem}
    assert (result.snapshot.complete, result.snapshot.num_missing_units) == (False, 1)
    for words in ("3 workers died of it", "died at 'encode'", "--retry-quarantined"):
        assert words in summary(result)
    assert run(settings(corpus, tiny_teacher, out, retry_quarantined=True)).snapshot.complete
    assert shards(out) == shards(finished.out)


def test_changed_settings_are_refused_naming_every_key_with_both_values(
    out: Path, corpus: Path, tiny_teacher: Path
) -> None:
    with pytest.raises(ConfigurationMismatchError) as caught:
        run(settings(corpus, tiny_teacher, out, tau=0.01, window=32, entropy=False))
    for line in ("scheme.tau: 0.001 in the output, 0.01 now", "window_tokens: 64 in", "entropy: True in the output"):
        assert line in str(caught.value)
    assert str(caught.value).count(" in the output, ") == 3


@pytest.mark.parametrize(
    ("head", "words"),
    [("random-sampling", "none: 50 random draws a position"), ("threshold-sampling", "p ≥ 0.05, the exact tail")],
)
@pytest.mark.slow
def test_sampled_datasets_are_sound_and_say_what_they_are(
    corpus: Path, tiny_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], head: Any, words: str
) -> None:
    result = run(settings(corpus, tiny_teacher, tmp_path / "out", head=head, theta=0.05, replicas=2))
    assert verify(result.out).faults == ()
    block = next(blocks(result.out))
    assert block.targets is not None
    first, second = block.targets.tail_samples
    np.testing.assert_array_equal(first.offsets, second.offsets)
    assert not np.array_equal(first.ids, second.ids)
    print_summary(describe(result.snapshot))
    assert words in capsys.readouterr().out
    with pytest.raises(ConfigurationMismatchError, match=r"scheme\.replicas: 2 in the output, 1 now"):
        run(settings(corpus, tiny_teacher, tmp_path / "out", head=head, theta=0.05))


@pytest.mark.slow
def test_extra_temperatures_are_stored_and_are_part_of_the_settings(
    corpus: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    result = run(settings(corpus, tiny_teacher, tmp_path / "out", temperatures=(4.0, 1.0, 2.0)))
    assert verify(result.out).faults == ()
    targets = next(blocks(result.out)).targets
    assert targets is not None
    assert sorted(targets.tempered_log_tails) == [2.0, 4.0]
    with pytest.raises(ConfigurationMismatchError, match="temperatures"):
        run(settings(corpus, tiny_teacher, tmp_path / "out"))


def test_extra_temperatures_of_samples_are_refused(corpus: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="omit --temperatures"):
        run(settings(corpus, tiny_teacher, tmp_path / "out", head="random-sampling", temperatures=(2.0,)))
    assert not (tmp_path / "out").exists()


def test_a_changed_corpus_is_refused(out: Path, corpus: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "more")
    with pytest.raises(ConfigurationMismatchError, match=r"corpus\.fingerprint"):
        run(settings(tmp_path / "more", tiny_teacher, out))


def test_what_was_chosen_for_the_machine_is_kept_on_resume(
    out: Path, corpus: Path, tiny_teacher: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resumed = settings(corpus, tiny_teacher, out, batch_tokens="auto", threads=None, shard_tokens=None, dtype="auto")
    assert run(resumed).num_units == 0
    assert not caplog.records
    run(dataclasses.replace(resumed, batch_tokens=128))
    assert "batch_tokens: the dataset was begun with 256, continuing with 128" in caplog.text


def test_an_output_that_holds_something_else_is_left_alone(corpus: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ForeignOutputError, match=r"thesis\.tex"):
        run(settings(corpus, tiny_teacher, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def broken_teacher(tiny_teacher: Path, directory: Path, **config: Any) -> Path:
    shutil.copytree(tiny_teacher, directory)
    settings = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(settings | config))
    return directory


def test_a_teacher_without_a_tokenizer_is_refused(corpus: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    teacher = broken_teacher(tiny_teacher, tmp_path / "teacher")
    (teacher / "tokenizer.model").unlink()
    with pytest.raises(TokenizerError, match="tokenizer"):
        run(settings(corpus, teacher, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_whose_ids_exceed_the_vocabulary_is_refused(
    corpus: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    teacher = broken_teacher(tiny_teacher, tmp_path / "teacher", vocab_size=500)
    with pytest.raises(VocabularyError, match="999"):
        run(settings(corpus, teacher, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"corpus": ("nowhere",)}, CorpusError, "no file found"),
        ({"teacher": "/no/such/teacher"}, TeacherError, "/no/such/teacher"),
        ({"chat_field": "messages"}, TokenizerError, "has no chat template"),
        ({"window": 1}, UsageError, "--window"),
        ({"window": 1024, "shard_tokens": 4096}, UsageError, "can attend to 512 tokens at most"),
        ({"overlap": 64}, UsageError, "--overlap"),
        ({"overlap": 62}, UsageError, "overlap of 62"),
        ({"held_out": 1.0}, UsageError, "--held-out"),
        ({"shard_tokens": 10}, UsageError, "--shard-tokens"),
        ({"tau": 0.0}, UsageError, "tau"),
        ({"runner": "slurm"}, UsageError, "choose one of local, dask"),
        ({"runner": "dask"}, UsageError, "--dask-scheduler"),
        ({"dask_scheduler": "tcp://h:1"}, UsageError, "--runner dask"),
        ({"workers": 0}, UsageError, "--workers"),
        ({"attempts": 0}, UsageError, "--attempts"),
    ],
)
def test_bad_usage_is_refused_before_anything_is_written(
    corpus: Path, tiny_teacher: Path, tmp_path: Path, changes: dict, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        run(dataclasses.replace(settings(corpus, tiny_teacher, tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()


def test_a_corpus_of_rejected_documents_only_says_why(tiny_teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n' * 3)
    with pytest.raises(CorpusError, match=r"missing_field: 3; .*--text-field \(now 'text'\)"):
        run(settings(tmp_path / "a.jsonl", tiny_teacher, tmp_path / "out"))


def test_a_corrupt_stream_costs_the_rest_of_the_file_only(tiny_teacher: Path, tmp_path: Path, english: str) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.txt.gz").write_bytes(gzip.compress(english[:2000].encode())[:-30])
    (tmp_path / "corpus/b.txt.gz").write_bytes(gzip.compress(english[:2000].encode()))
    snapshot = run(settings(tmp_path / "corpus", tiny_teacher, tmp_path / "out", held_out=0.0)).snapshot
    assert snapshot.rejected == {"corrupt_stream": 1}
    assert (snapshot.num_documents_in, snapshot.total().num_documents, snapshot.complete) == (2, 1, True)


class FailingScorer:
    """The real scorer, but for batches in which a token occurs."""

    def __init__(self, scorer: Any, token: int, error: Exception) -> None:
        self._scorer, self._token, self._error = scorer, token, error
        self.environment = scorer.environment
        self.batch_tokens = scorer.batch_tokens

    def prepare_thread(self) -> None:
        self._scorer.prepare_thread()

    def score_and_measure(self, windows: Windows, measured_T: np.ndarray) -> tuple[Targets, VocabularyStatistics]:
        if (windows.token == self._token).any():
            raise self._error
        return self._scorer.score_and_measure(windows, measured_T)


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the teacher fail on windows that hold a token."""
    load = SCORERS["huggingface"]

    def start(token: int, error: Exception) -> None:
        monkeypatch.setitem(SCORERS, "huggingface", lambda spec: FailingScorer(load(spec), token, error))

    return start


def rare_token(finished: JobResult) -> int:
    """A token of one target shard only."""
    seen = [set(block.windows.token.tolist()) for block in blocks(finished.out)]
    return next(token for token in sorted(seen[-1]) if sum(token in one for one in seen) == 1)


def test_a_unit_whose_teacher_gives_nan_is_set_aside_with_its_documents(
    finished: JobResult, corpus: Path, tiny_teacher: Path, tmp_path: Path, fail: Any
) -> None:
    fail(rare_token(finished), NonFiniteError("NaN at row 3"))
    snapshot = run(settings(corpus, tiny_teacher, tmp_path / "out")).snapshot
    rejected = snapshot.rejected["non_finite"]
    assert rejected > 0
    assert snapshot.complete
    assert snapshot.num_documents_in == snapshot.total().num_documents + snapshot.num_rejected
    [file] = [path for path in (tmp_path / "out/rejected").iterdir() if "non_finite" in path.read_text()]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) >= rejected
    assert all(line["source"].startswith(str(corpus)) and "NaN at row 3" in line["detail"] for line in lines)
    assert run(settings(corpus, tiny_teacher, tmp_path / "out")).num_units == 0


@pytest.mark.slow
def test_a_failed_job_keeps_its_error_s_name_and_what_was_done_and_can_be_finished(
    finished: JobResult, corpus: Path, tiny_teacher: Path, tmp_path: Path, fail: Any
) -> None:
    fail(rare_token(finished), OSError(28, "No space left on device"))
    config = settings(corpus, tiny_teacher, tmp_path / "out")
    with pytest.raises(UnitFailedError, match=r"OSError: \[Errno 28\] No space left on device.*run the same command"):
        run(config)
    with pytest.raises(IncompleteDatasetError, match="not complete"):
        complete_snapshot(config.out)
    fail(-1, OSError())
    assert run(config).snapshot.complete
    assert shards(config.out) == shards(finished.out)


def test_an_attempt_that_fails_is_followed_by_another(
    finished: JobResult, corpus: Path, tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, failures = annotate_unit.encode_unit, [OSError("once")]

    def flaky(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return encode(*arguments)

    monkeypatch.setattr(annotate_unit, "encode_unit", flaky)
    result = run(settings(corpus, tiny_teacher, tmp_path / "out", attempts=2))
    assert result.snapshot.complete
    assert shards(result.out) == shards(finished.out)


def test_a_damaged_token_shard_is_named(out: Path, corpus: Path, tiny_teacher: Path) -> None:
    shard = sorted(out.glob("tokens/train/*.parquet"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    shutil.rmtree(out / "targets")
    with pytest.raises(CorruptShardError, match=shard.name):
        run(settings(corpus, tiny_teacher, out))


def test_a_target_shard_with_another_length_than_its_record_is_named(
    out: Path, corpus: Path, tiny_teacher: Path
) -> None:
    shard = sorted(out.glob("targets/train/*.parquet"))[0]
    shard.write_bytes(shard.read_bytes() + b"x")
    with pytest.raises(CorruptShardError, match=f"{shard.name}.*its record says"):
        run(settings(corpus, tiny_teacher, out))
