"""`--online`: the commands with a live teacher."""

import json

import pytest

from logitcask.schemas import cli
from logitcask.schemas.errors import FingerprintMismatchError
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.online.run import check_tokenizer


@pytest.mark.slow
def test_train_and_eval_accept_a_live_teacher(dataset_url, tiny_teacher, pruned_student, tmp_path, capsys):
    run = tmp_path / "run"
    words = [
        "train",
        dataset_url,
        "--student",
        str(pruned_student),
        "--out",
        str(run),
        "--steps",
        "1",
        "--batch-windows",
        "2",
    ]
    assert cli.main([*words, "--device", "cpu", "--online", str(tiny_teacher)]) == 0
    assert "full KL to the teacher" in capsys.readouterr().out
    assert cli.main(["eval", str(run), "--shards", dataset_url, "--online", str(tiny_teacher), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    after = json.loads((run / "results.json").read_text())["held_out"]["after"]
    assert measured == pytest.approx(after, rel=1e-4)
    assert measured["full_kl_nats"] > measured["kl_nats"]
    words[words.index(str(run))] = str(tmp_path / "stored")
    assert cli.main([*words, "--device", "cpu", "--online", str(tiny_teacher), "--online-targets", "stored"]) == 0


def test_a_teacher_with_another_tokenizer_is_refused(tiny_teacher, write_dataset, tmp_path):
    url = write_dataset(tmp_path / "foreign", {"train": [1]})
    with pytest.raises(FingerprintMismatchError, match=r"the live teacher: .*; the shards: made up"):
        check_tokenizer(str(tiny_teacher), SoftTargetDataset(url))
