import math

import numpy as np
import pytest
from report_dataset import FIRST_HALF, SECOND_HALF

from logitcask.schemas.inspection.window import dataset_vocabulary
from logitcask.schemas.report.gathering import SampleSize, gather
from logitcask.schemas.report.windows import StudentRows


def rows_of(window, stored):
    """The block of a window's shard, and for each row shown its index in the window and in the block."""
    block = stored[window["shard"]]
    first = block.windows.window_offsets[window["window_in_shard"]]
    return block, [(row, int(first) + row) for row in range(len(window["token"]))]


def close(found, value, **tolerance):
    return found is None if math.isnan(value) else found == pytest.approx(value, **tolerance)


def test_every_row_equals_that_of_its_shard(report, stored):
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


def test_alternatives_are_the_most_probable_entries_in_order(report, stored):
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


def test_rows_without_a_target_have_their_kind_and_no_values(report):
    (window,) = [one for one in report["windows"] if one["window"] == 0]
    assert window["kind"][23:27] == ["train", "prompt", "prompt", "train"]
    assert (window["tail"][24], window["top"][24]) == (None, [])


def test_a_character_of_several_tokens_is_shown_at_the_last_of_them(report):
    (window,) = [one for one in report["windows"] if one["window"] == 0]
    shown = [report["pieces"]["id"][piece] for piece in window["token"][2:4]]
    assert shown == [FIRST_HALF, SECOND_HALF]
    assert window["joined"] == {"2": "", "3": "é"}


def test_a_student_scores_whole_windows_even_if_they_are_cut(snapshot, stored):
    def student(windows, targets):
        rows = np.arange(windows.num_positions, dtype=np.float32)
        return StudentRows(kl_nats=rows, loss_nats=2 * rows, probabilities=np.exp(targets.head_log_probs) / 2)

    size = SampleSize(num_windows=2, num_tokens=60)
    for window in gather(snapshot, dataset_vocabulary(snapshot), size, student=student)["windows"]:
        assert window["student"]["kl"] == list(range(30))
        assert window["student"]["loss"][:3] == [0, 2, 4]
        for flat, probabilities in zip(window["top"], window["student"]["p"], strict=True):
            assert probabilities == pytest.approx([p / 2 for p in flat[1::2]], rel=1e-2)
