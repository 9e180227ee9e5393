"""A report combines the summary of the snapshot with a sample of windows; docs/report-json.md explains every key."""

import re

import numpy as np
import pytest
import report_dataset
from json_paths import leaves
from repository import ROOT

from logitcask.schemas import cli
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.errors import UsageError
from logitcask.schemas.inspection.summary import describe
from logitcask.schemas.inspection.window import dataset_vocabulary
from logitcask.schemas.report.gathering import SampleSize, gather
from logitcask.schemas.report.windows import StudentRows

PAGE = ROOT / "docs/report-json.md"
EVERYTHING = SampleSize(num_windows=12, num_tokens=12 * 48)


def test_figures_of_the_whole_dataset_equal_those_of_inspect(report, snapshot):
    assert report["dataset"] == describe(snapshot)


def test_without_a_vocabulary_pieces_are_null(tmp_path):
    snapshot = report_dataset.write_dataset(str(tmp_path / "old"), windows_per_shard=1, vocabulary=False)
    report = gather(snapshot, None, EVERYTHING)
    assert set(report["pieces"]["text"]) == {None}
    assert len(report["pieces"]["id"]) == len(set(report["pieces"]["id"]))


def test_windows_are_cut_to_equal_shares_of_the_tokens(snapshot):
    report = gather(snapshot, dataset_vocabulary(snapshot), SampleSize(num_windows=4, num_tokens=40))
    assert [len(window["token"]) for window in report["windows"]] == [10] * 4
    assert all(window["num_rows"] > 40 for window in report["windows"])
    assert report["sample"]["tokens"] == 40


@pytest.mark.parametrize(("windows", "tokens"), [(0, 10), (4, 3)])
def test_an_empty_sample_is_refused(windows, tokens):
    with pytest.raises(UsageError, match="at least one window"):
        SampleSize(num_windows=windows, num_tokens=tokens)


def test_the_page_explains_exactly_the_keys_of_the_data(snapshot, write_run):
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
        # Empty: rows without a head, windows with rows of one kind only, a scheme without draws.
        "windows[].top[]",
        "windows[].student.p[]",
        "windows[].kind",
        "windows[].drawn",
        "windows[].joined",
    }
    silent = {key for key, one in patterns.items() if not any(re.fullmatch(one, leaf) for leaf in found)}
    assert silent == {"windows[].drawn[][]"}


def test_a_forgotten_document_is_not_shown(tmp_path):
    snapshot = report_dataset.write_dataset(str(tmp_path / "cask"), windows_per_shard=2)
    document = f"train-0{report_dataset.HOSTILE}"
    assert cli.main(["forget", snapshot.url, document]) == 0
    shown = gather(load_snapshot(snapshot.url), dataset_vocabulary(snapshot), EVERYTHING)
    documents = {part["document"] for window in shown["windows"] for part in window["parts"]}
    assert document not in documents
    assert len(documents) == 7
