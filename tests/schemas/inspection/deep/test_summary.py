"""The statistics of every row equal those of a plain loop over rows; a snapshot that contradicts them is noticed."""

import dataclasses

import numpy as np
import pytest
from edited_json import edit_json

from logitcask.schemas import cli
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.inspection.deep.summary import describe_rows
from logitcask.schemas.inspection.window import dataset_vocabulary


@pytest.fixture
def rows(seen):
    """(label id or -1, loss, entropy, sorted head probabilities, hit or not) of every row with a target."""
    found = []
    for entry in seen.shards():
        with ShardReader(seen.shard_url(entry)) as reader:
            block, bytes_of_heads = reader.read(), reader.read_stored().targets.head_q
        targets, labels = block.targets, block.windows.next_token()
        for row in np.flatnonzero(targets.has_target()):
            entries = slice(targets.head_offsets[row], targets.head_offsets[row + 1])
            probs = np.exp(targets.head_log_probs[entries].astype(np.float64))
            tops = set(targets.head_ids[entries][probs == probs.max()].tolist())
            label = labels[row] if targets.has_label()[row] else -1
            # Half a step of the next token's log-probability above the lower edge of the byte of the head's largest.
            u = (bytes_of_heads[entries].min() + np.arange(2)) / 64
            hit = bool(targets.log_next[row] + 1 / 4096 >= -(u * (1 + u)).mean())
            assert hit or label not in tops
            found.append((int(label), -targets.log_next[row], targets.entropy[row], np.sort(probs)[::-1], hit))
    return found


def test_the_mass_of_the_k_largest_equals_that_of_sorted_rows(seen, rows):
    deep = describe_rows(seen)
    for k, mass in deep["mass_of_top_k_stored"].items():
        assert mass == pytest.approx(np.mean([probs[: int(k)].sum() for *_, probs, _ in rows]), rel=1e-5)
    wide_enough = np.mean([len(probs) >= 16 for *_, probs, _ in rows])
    assert deep["share_of_heads_with_k"]["16"] == pytest.approx(wide_enough)


def test_loss_by_id_and_its_correlation_with_entropy(seen, rows):
    deep = describe_rows(seen, dataset_vocabulary(seen))
    labeled = [row for row in rows if row[0] >= 0]
    losses, entropies = (np.array([row[i] for row in labeled], np.float64) for i in (1, 2))
    assert deep["entropy_loss_correlation"] == pytest.approx(np.corrcoef(entropies, losses)[0, 1])
    hardest = deep["hardest_ids"][0]
    by_id = {}
    for label, loss, *_ in labeled:
        by_id[label] = by_id.get(label, 0) + float(loss)
    assert hardest["id"] == max(by_id, key=by_id.__getitem__)
    assert hardest["share_of_loss"] == pytest.approx(max(by_id.values()) / losses.sum())
    ours = [row for row in labeled if row[0] == hardest["id"]]
    assert (hardest["labels"], hardest["misses"]) == (len(ours), sum(not row[4] for row in ours))


def test_calibration_counts_hits_by_the_largest_probability(seen, rows):
    deep = describe_rows(seen)
    labeled = [row for row in rows if row[0] >= 0]
    assert sum(bucket["rows"] for bucket in deep["calibration"]) == len(labeled)
    for bucket in deep["calibration"]:
        inside = [row for row in labeled if bucket["from"] <= row[3][0] < bucket["to"]]
        assert bucket["rows"] == len(inside)
        assert bucket["hit_rate"] == pytest.approx(np.mean([row[4] for row in inside]))


def test_the_figures_of_the_snapshot_are_confirmed(seen):
    checks = describe_rows(seen)["checks"]
    assert {check["what"] for check in checks} >= {"targets", "labels", "head entries", "mean entropy"}
    assert all(check["holds"] for check in checks)


def test_a_contradicting_snapshot_fails_a_check(seen, tmp_path, capsys):
    file = tmp_path / "seen/snapshots/000001.json"
    edit_json(file, lambda value: value["splits"]["train"]["statistics"].update(head_entries=1))
    assert cli.main(["inspect", seen.url, "--deep"]) == 1
    assert "head entries" in capsys.readouterr().out


def test_progress_counts_every_row(seen):
    seen_rows = []
    describe_rows(seen, progress=seen_rows.append)
    assert sum(seen_rows) == seen.total().num_positions


def test_a_dataset_without_heads_has_no_mass_and_no_calibration(tmp_path, write_dataset, shards):
    name, split, windows, targets = shards[0]
    empty = dataclasses.replace(
        targets,
        head_ids=np.zeros(0, np.int32),
        head_log_probs=np.zeros(0, np.float32),
        head_offsets=np.zeros_like(targets.head_offsets),
    )
    snapshot = write_dataset(str(tmp_path / "out"), [(name, split, windows, empty)])
    deep = describe_rows(snapshot)
    assert (deep["mass_of_top_k_stored"], deep["calibration"], deep["expected_calibration_error"]) == ({}, [], None)
