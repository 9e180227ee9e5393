import json

import pytest

from logitcask.schemas.errors import UsageError
from logitcask.schemas.report.curves import MAX_POINTS, describe_run


def test_curves_are_the_logged_metrics_without_a_line_cut_short(write_run):
    lines = [json.dumps({"step": step, "loss": 10 / step, "epoch": 0.1}) for step in (1, 2, 5)]
    found = describe_run(write_run([*lines, '{"step": 6, "lo']))
    assert found["curves"] == {"step": [1, 2, 5], "values": {"loss": [10, 5, 2]}}
    assert (found["steps"], found["steps_per_point"], found["held_out"]) == (5, 1, None)


def test_many_steps_become_means_of_groups(write_run):
    lines = [json.dumps({"step": step + 1, "loss": step % 3}) for step in range(3 * MAX_POINTS)]
    found = describe_run(write_run(lines))
    assert found["steps_per_point"] == 3
    assert found["curves"]["values"]["loss"] == [1] * MAX_POINTS
    assert found["curves"]["step"][-1] == 3 * MAX_POINTS


def test_a_value_that_is_not_finite_leaves_a_gap(write_run):
    found = describe_run(write_run(['{"step": 1, "loss": NaN}', '{"step": 2, "loss": 3}']))
    assert found["curves"]["values"]["loss"] == [None, 3]


def test_a_directory_without_metrics_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no metrics\.jsonl"):
        describe_run(tmp_path)
