"""What a report says is what the shards and the snapshot hold; a sample of it, the same one each time."""

import json
import math
import os
import re

import numpy as np
import pytest
import report_dataset
from report_dataset import FIRST_HALF, SECOND_HALF, VOCAB_SIZE
from repository import ROOT

from logitcask.schemas import cli
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.inspection.summary import describe
from logitcask.schemas.inspection.window import dataset_vocabulary
from logitcask.schemas.report.curves import MAX_POINTS, describe_run
from logitcask.schemas.report.gathering import SampleSize, gather
from logitcask.schemas.report.sampling import RANDOM, sample_windows
from logitcask.schemas.report.windows import StudentRows

PAGE = ROOT / "docs/report-json.md"
EVERYTHING = SampleSize(num_windows=12, num_tokens=12 * 48)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return report_dataset.write_dataset(str(tmp_path_factory.mktemp("report") / "cask"))


@pytest.fixture(scope="module")
def report(snapshot):
    return gather(snapshot, dataset_vocabulary(snapshot), EVERYTHING)


@pytest.fixture(scope="module")
def stored(snapshot):
    """Windows and targets of every shard, by the shard's name, read plainly."""
    found = {}
    for entry in snapshot.shards():
        with ShardReader(snapshot.shard_url(entry)) as reader:
            found[entry.name] = reader.read()
    return found


def rows_of(window, stored):
    """Each row that is shown, and the row of the shard that it is."""
    block = stored[window["shard"]]
    first = block.windows.window_offsets[window["window_in_shard"]]
    return block, [(row, int(first) + row) for row in range(len(window["token"]))]


def close(found, value, **tolerance):
    return found is None if math.isnan(value) else found == pytest.approx(value, **tolerance)


def test_every_row_is_that_of_the_shard(report, stored):
    ids = report["pieces"]["id"]
    assert sum(len(window["token"]) for window in report["windows"]) == sum(
        block.windows.num_positions for block in stored.values()
    )
    for window in report["windows"]:
        block, rows = rows_of(window, stored)
        for shown, row in rows:
            assert ids[window["token"][shown]] == block.windows.token[row]
            assert close(window["loss"][shown], -block.targets.log_next[row], abs=6e-4)
            assert close(window["entropy"][shown], block.targets.entropy[row], abs=6e-4)
            assert close(window["tail"][shown], np.exp(block.targets.log_tail[row]), rel=1e-3)
            assert window["width"][shown] == block.targets.head_widths()[row]


def test_the_alternatives_are_the_most_probable_of_the_head_in_order(report, stored):
    ids = report["pieces"]["id"]
    for window in report["windows"]:
        block, rows = rows_of(window, stored)
        for shown, row in rows:
            entries = slice(*block.targets.head_offsets[row : row + 2])
            head = zip(-block.targets.head_log_probs[entries], block.targets.head_ids[entries], strict=True)
            expected = [(int(one), math.exp(-cost)) for cost, one in sorted(head)[:8]]
            flat = window["top"][shown]
            assert [ids[piece] for piece in flat[::2]] == [one for one, _ in expected]
            assert flat[1::2] == pytest.approx([p for _, p in expected], rel=1e-3)


def test_figures_of_the_whole_dataset_are_those_of_inspect(report, snapshot):
    assert report["dataset"] == describe(snapshot)


def test_rows_without_a_target_say_so(report):
    (window,) = [one for one in report["windows"] if one["window"] == 0]
    assert window["kind"][23:27] == ["train", "prompt", "prompt", "train"]
    assert (window["tail"][24], window["top"][24]) == (None, [])


def test_a_character_spread_over_tokens_stands_at_the_last_of_them(report):
    (window,) = [one for one in report["windows"] if one["window"] == 0]
    shown = [report["pieces"]["id"][piece] for piece in window["token"][2:4]]
    assert shown == [FIRST_HALF, SECOND_HALF]
    assert window["joined"] == {"2": "", "3": "é"}


def test_without_a_vocabulary_pieces_are_null(tmp_path):
    snapshot = report_dataset.write_dataset(str(tmp_path / "old"), windows_per_shard=1, vocabulary=False)
    report = gather(snapshot, None, EVERYTHING)
    assert set(report["pieces"]["text"]) == {None}
    assert len(report["pieces"]["id"]) == len(set(report["pieces"]["id"]))


def test_the_sample_depends_on_the_seed_alone(snapshot):
    draw = [[one.number for one in sample_windows(snapshot, 5, seed)] for seed in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2]
    assert all(len(set(numbers)) == 5 and numbers == sorted(numbers) for numbers in draw)


def test_outliers_take_at_most_half_of_the_sample(snapshot):
    reasons = [one.reason for one in sample_windows(snapshot, 4)]
    assert sum(reason != RANDOM for reason in reasons) == 2


def test_outliers_are_the_windows_that_the_snapshot_names(snapshot):
    extremes = snapshot.total().extremes
    for one in sample_windows(snapshot, 12):
        if one.reason != RANDOM:
            assert (one.shard.entry.name, one.index) in [(e.shard, e.window) for e in extremes[one.reason][:2]]


def test_windows_are_cut_to_their_share_of_the_tokens(snapshot):
    report = gather(snapshot, dataset_vocabulary(snapshot), SampleSize(num_windows=4, num_tokens=40))
    assert [len(window["token"]) for window in report["windows"]] == [10] * 4
    assert all(window["num_rows"] > 40 for window in report["windows"])
    assert report["sample"]["tokens"] == 40


@pytest.mark.parametrize(("windows", "tokens"), [(0, 10), (4, 3)])
def test_a_sample_of_nothing_is_refused(windows, tokens):
    with pytest.raises(UsageError, match="at least one window"):
        SampleSize(num_windows=windows, num_tokens=tokens)


def test_a_student_is_asked_for_each_window_whole(snapshot, stored):
    def student(windows, targets):
        rows = np.arange(windows.num_positions, dtype=np.float32)
        return StudentRows(kl_nats=rows, loss_nats=2 * rows, probabilities=np.exp(targets.head_log_probs) / 2)

    size = SampleSize(num_windows=2, num_tokens=60)
    for window in gather(snapshot, dataset_vocabulary(snapshot), size, student=student)["windows"]:
        assert window["student"]["kl"] == list(range(30))
        assert window["student"]["loss"][:3] == [0, 2, 4]
        for flat, probabilities in zip(window["top"], window["student"]["p"], strict=True):
            assert probabilities == pytest.approx([p / 2 for p in flat[1::2]], rel=1e-2)


@pytest.fixture
def write_run(tmp_path):
    def write(lines, results=None):
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
        if results:
            (tmp_path / "results.json").write_text(json.dumps(results))
        return tmp_path

    return write


def test_curves_are_what_the_run_logged_but_for_a_line_cut_short(write_run):
    lines = [json.dumps({"step": step, "loss": 10 / step, "epoch": 0.1}) for step in (1, 2, 5)]
    found = describe_run(write_run([*lines, '{"step": 6, "lo']))
    assert found["curves"] == {"step": [1, 2, 5], "values": {"loss": [10, 5, 2]}}
    assert (found["steps"], found["steps_per_point"], found["held_out"]) == (5, 1, None)


def test_many_steps_become_means_of_neighbours(write_run):
    lines = [json.dumps({"step": step + 1, "loss": step % 3}) for step in range(3 * MAX_POINTS)]
    found = describe_run(write_run(lines))
    assert found["steps_per_point"] == 3
    assert found["curves"]["values"]["loss"] == [1] * MAX_POINTS
    assert found["curves"]["step"][-1] == 3 * MAX_POINTS


def test_what_is_not_finite_leaves_a_gap(write_run):
    found = describe_run(write_run(['{"step": 1, "loss": NaN}', '{"step": 2, "loss": 3}']))
    assert found["curves"]["values"]["loss"] == [None, 3]


def test_a_directory_without_metrics_is_no_run(tmp_path):
    with pytest.raises(UsageError, match=r"no metrics\.jsonl"):
        describe_run(tmp_path)


def leaves(value, path=""):
    """Keys of a JSON value, as docs/report-json.md writes them."""
    if isinstance(value, dict) and value:
        return {leaf for key, one in value.items() for leaf in leaves(one, f"{path}.{key}".lstrip("."))}
    if isinstance(value, list) and value:
        return {leaf for one in value for leaf in leaves(one, f"{path}[]")}
    return {path}


def test_every_key_is_explained_and_every_explained_key_is_there(snapshot, write_run):
    def student(windows, targets):
        rows = np.zeros(windows.num_positions)
        return StudentRows(kl_nats=rows, loss_nats=rows, probabilities=np.exp(targets.head_log_probs))

    figures = {"kl_nats": 1.0}
    run = write_run(['{"step": 1, "loss": 2.0}'], {"held_out": {"before": figures, "after": figures}})
    report = gather(snapshot, dataset_vocabulary(snapshot), EVERYTHING, run=run, student=student)
    keys = re.findall(r"^\| `(.+?)` \|", PAGE.read_text(), re.MULTILINE)
    patterns = {key: re.sub(r"<[a-z]+>", ".+", re.escape(key)) for key in keys}
    found = leaves(report)
    assert {leaf for leaf in found if not any(re.fullmatch(one, leaf) for one in patterns.values())} <= {
        # Empty lists: rows without a head, windows whose rows are all of one kind, a scheme that does not sample.
        "windows[].top[]",
        "windows[].student.p[]",
        "windows[].kind",
        "windows[].drawn",
        "windows[].joined",
    }
    silent = {key for key, one in patterns.items() if not any(re.fullmatch(one, leaf) for leaf in found)}
    assert silent == {"windows[].drawn[][]"}


def test_the_command_writes_the_same_bytes_each_time(snapshot, tmp_path, capsys):
    pages = []
    for name in ("a.html", "b.html"):
        assert cli.main(["report", snapshot.url, "--html", str(tmp_path / name)]) == 0
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
    assert "12 of 12 windows, 564 tokens" in capsys.readouterr().err


def test_others_may_read_the_page_if_the_umask_lets_them(snapshot, tmp_path):
    before = os.umask(0o022)
    try:
        assert cli.main(["report", snapshot.url, "--html", str(tmp_path / "out.html")]) == 0
    finally:
        os.umask(before)
    assert (tmp_path / "out.html").stat().st_mode & 0o777 == 0o644


def test_the_command_prints_the_data_as_json(snapshot, capsys):
    assert cli.main(["report", snapshot.url, "--windows", "3", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == "logitcask.report/1"
    assert len(printed["windows"]) == 3
    assert max(printed["pieces"]["id"]) < VOCAB_SIZE


def test_a_configuration_file_names_the_run_as_the_flag_does(snapshot, tmp_path, write_run, capsys):
    run = write_run(['{"step": 1, "loss": 2}'])
    (tmp_path / "report.toml").write_text(f'run = "{run}"\nscore = false\njson = true\n')
    assert cli.main(["report", snapshot.url, "--config", str(tmp_path / "report.toml")]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["steps"] == 1


def test_a_forgotten_document_is_not_shown(tmp_path):
    snapshot = report_dataset.write_dataset(str(tmp_path / "cask"), windows_per_shard=2)
    document = f"train-0{report_dataset.HOSTILE}"
    assert cli.main(["forget", snapshot.url, document]) == 0
    shown = gather(load_snapshot(snapshot.url), dataset_vocabulary(snapshot), EVERYTHING)
    documents = {part["document"] for window in shown["windows"] for part in window["parts"]}
    assert document not in documents
    assert len(documents) == 7
