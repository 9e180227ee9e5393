"""A window shows what the shard holds, and corpora cannot write to the terminal."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from logitcask.schemas import cli
from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.inspection.search import find_text, locate_document
from logitcask.schemas.inspection.window import dataset_vocabulary, describe_window
from logitcask.schemas.inspection.window_view import print_window
from logitcask.schemas.redaction import printable_line


def test_a_window_holds_what_the_shard_holds(seen, shards):
    window = describe_window(seen, "6", dataset_vocabulary(seen), num_alternatives=3)
    (entry,) = seen.shards("train")
    assert (window["split"], window["shard"], window["window_in_shard"]) == ("train", "shard-0", 1)
    with ShardReader(seen.shard_url(entry)) as reader:
        block = reader.read(1, 2)
    targets = block.targets
    assert targets is not None
    for index, row in enumerate(window["rows"]):
        assert row["id"] == block.windows.token[index]
        assert (row["loss_nats"] is None) == np.isnan(targets.log_next[index])
        entries = slice(targets.head_offsets[index], targets.head_offsets[index + 1])
        largest = np.sort(targets.head_log_probs[entries])[::-1][:3]
        assert [one["p"] for one in row["alternatives"]] == pytest.approx(np.exp(largest).tolist())
        if row["next"]:
            assert row["next"]["id"] == block.windows.token[index + 1]
    assert window["parts"][-1]["stop_row"] == len(window["rows"]) == 50


def test_a_window_is_called_by_its_number_or_by_shard_and_index(seen):
    by_name, by_number = (describe_window(seen, window, None) for window in ("shard-0:1", "6"))
    assert by_name == by_number


@pytest.mark.parametrize("window", ["10", "-1", "x", "shard-0:5", "nowhere:0"])
def test_a_window_that_is_not_there_is_a_usage_error(seen, window):
    with pytest.raises(UsageError, match="window"):
        describe_window(seen, window, None)


def test_control_characters_of_a_corpus_never_reach_the_terminal(tmp_path, write_dataset, shards):
    name, split, windows, targets = shards[0]
    token = windows.token.copy()
    token[:3] = (7, 8, 9)
    snapshot = write_dataset(str(tmp_path / "out"), [(name, split, dataclasses.replace(windows, token=token), targets)])
    file = io.StringIO()
    window = describe_window(snapshot, "0", dataset_vocabulary(snapshot))
    print_window(window, console=Console(file=file, width=100, highlight=False))
    assert "\x1b" not in file.getvalue()
    assert "\\x1b[31m" in file.getvalue()


def test_what_moves_cursors_or_turns_text_is_spelt_out():
    assert printable_line("a\x1b[2J\u202eb\u200bc\x07\ud800 ö世👍") == "a\\x1b[2J\\u202eb\\u200bc\\x07\\ud800 ö世👍"


def test_a_dataset_without_its_vocabulary_shows_ids(tmp_path, write_dataset, shards, capsys):
    snapshot = write_dataset(str(tmp_path / "out"), shards, vocabulary=False)
    assert cli.main(["inspect", snapshot.url, "--window", "0", "--rows", "0:3"]) == 0
    shown = capsys.readouterr()
    row = describe_window(snapshot, "0", None)["rows"][0]
    assert f"#{row['id']}" in shown.out
    assert "run the same `logitcask annotate` again" in shown.err
    assert cli.main(["inspect", snapshot.url, "--find", "w1"]) == 2


def test_text_is_found_in_every_window_that_holds_it(seen, shards):
    vocabulary = dataset_vocabulary(seen)
    texts = [
        vocabulary.text(windows.select(i, i + 1).token.tolist())
        for _, _, windows, _ in (shards[1], shards[0])
        for i in range(windows.num_windows)
    ]
    found = find_text(seen, " w42", vocabulary, limit=100)
    assert [hit["window"] for hit in found["hits"]] == [i for i, text in enumerate(texts) if " w42" in text]
    for hit in found["hits"]:
        row = describe_window(seen, str(hit["window"]), vocabulary)["rows"][hit["row"]]
        assert row["piece"].startswith(" w42")
        assert hit["before"][-20:] + " w42" + hit["after"][:20] in texts[hit["window"]]
    assert find_text(seen, " w42", vocabulary, limit=1)["stopped_at_limit"]


def test_a_document_is_found_where_its_parts_lie(seen, shards):
    _, _, windows, _ = shards[0]
    wanted = windows.parts[3].id
    (part,) = locate_document(seen, wanted)["parts"]
    window = describe_window(seen, str(part["window"]), None)
    assert {"document": wanted, "first_row": part["first_row"], "stop_row": part["stop_row"]}.items() <= next(
        one for one in window["parts"] if one["document"] == wanted
    ).items()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--find", "nothing like this"], 1),
        (["--document", "nobody"], 1),
        (["--window", "99"], 2),
        (["--window", "0", "--deep"], 2),
        (["--rows", "0:3"], 2),
        (["--window", "0", "--rows", "a"], 2),
        (["--top", "0"], 2),
        (["--find", ""], 2),
        (["--find", " w1"], 0),
    ],
)
def test_the_exit_status_says_how_it_went(seen, words, status, capsys):
    assert cli.main(["inspect", seen.url, *words]) == status


def test_rows_limit_what_is_printed_as_json_too(seen, capsys):
    assert cli.main(["inspect", seen.url, "--window", "6", "--rows", "2:5", "--json"]) == 0
    assert [row["row"] for row in json.loads(capsys.readouterr().out)["rows"]] == [2, 3, 4]
