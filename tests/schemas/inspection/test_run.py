import json

import pytest

from logitcask.schemas import cli
from logitcask.schemas.errors import UsageError
from logitcask.schemas.inspection.run import parse_rows
from logitcask.schemas.inspection.window import describe_window


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (None, slice(None)),
        ("10:40", slice(10, 40)),
        (":40", slice(0, 40)),
        ("10:", slice(10, None)),
        ("10", slice(10, 11)),
    ],
)
def test_rows_are_a_range_or_one_number(rows, expected):
    assert parse_rows(rows) == expected


@pytest.mark.parametrize("rows", ["a", "1:b", "1:2:3"])
def test_other_rows_are_a_usage_error(rows):
    with pytest.raises(UsageError, match="START:STOP"):
        parse_rows(rows)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--find", "nothing like this"], 1),
        (["--document", "missing"], 1),
        (["--window", "99"], 2),
        (["--window", "0", "--deep"], 2),
        (["--rows", "0:3"], 2),
        (["--split", "train"], 2),
        (["--window", "0", "--rows", "a"], 2),
        (["--top", "0"], 2),
        (["--find", ""], 2),
        (["--find", " w1"], 0),
    ],
)
def test_the_exit_status_tells_success_from_bad_data_and_bad_usage(seen, words, status, capsys):
    assert cli.main(["inspect", seen.url, *words]) == status


def test_views_exclude_each_other(seen, capsys):
    assert cli.main(["inspect", seen.url, "--window", "0", "--deep"]) == 2
    assert "--deep and --window exclude each other" in capsys.readouterr().err


def test_json_contains_only_the_chosen_rows(seen, capsys):
    assert cli.main(["inspect", seen.url, "--window", "6", "--rows", "2:5", "--json"]) == 0
    assert [row["row"] for row in json.loads(capsys.readouterr().out)["rows"]] == [2, 3, 4]


def test_a_dataset_without_its_vocabulary_shows_ids(tmp_path, write_dataset, shards, capsys):
    snapshot = write_dataset(str(tmp_path / "out"), shards, vocabulary=False)
    assert cli.main(["inspect", snapshot.url, "--window", "0", "--rows", "0:3"]) == 0
    shown = capsys.readouterr()
    row = describe_window(snapshot, "0", None)["rows"][0]
    assert f"#{row['id']}" in shown.out
    assert "run the same `logitcask annotate` again" in shown.err
    assert cli.main(["inspect", snapshot.url, "--find", "w1"]) == 2
