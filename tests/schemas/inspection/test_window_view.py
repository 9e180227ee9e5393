import dataclasses

import pytest

from logitcask.schemas.inspection.window import dataset_vocabulary, describe_window
from logitcask.schemas.inspection.window_view import print_window, shade


def test_control_characters_of_a_corpus_never_reach_the_terminal(tmp_path, write_dataset, shards, console):
    name, split, windows, targets = shards[0]
    token = windows.token.copy()
    token[:3] = (7, 8, 9)
    snapshot = write_dataset(str(tmp_path / "out"), [(name, split, dataclasses.replace(windows, token=token), targets)])
    print_window(describe_window(snapshot, "0", dataset_vocabulary(snapshot)), console=console)
    assert "\x1b" not in console.file.getvalue()
    assert "\\x1b[31m" in console.file.getvalue()


def test_the_table_lists_the_chosen_rows(seen, console):
    print_window(describe_window(seen, "6", dataset_vocabulary(seen)), slice(2, 4), console)
    table = console.file.getvalue().split("the teacher's distribution")[1].splitlines()[1:]
    assert [int(line.split()[0]) for line in table] == [2, 3]


@pytest.mark.parametrize(("loss_nats", "lower"), [(1.5, 1.4), (3.0, 2.9), (5.0, 4.9), (8.0, 7.9)])
def test_a_token_is_shaded_from_the_loss_in_the_legend(loss_nats, lower):
    assert shade(loss_nats) != shade(lower)
    assert shade(None) == shade(0.0) == ""
