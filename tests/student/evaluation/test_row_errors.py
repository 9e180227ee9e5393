"""Errors by row: their means equal the evaluation."""

import numpy as np
import pytest
import torch

from logitcask.schemas.dataset.shard_view import open_shard
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.errors import FingerprintMismatchError
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.evaluation.evaluate import evaluate
from logitcask.student.evaluation.row_errors import student_errors
from logitcask.student.model.load import load_student


@pytest.fixture
def scored(dataset_url, student_directory):
    """Each held-out window with its targets and the student's errors."""
    dataset = SoftTargetDataset(dataset_url, "held-out")
    score = student_errors(student_directory, dataset.metadata)
    snapshot = load_snapshot(dataset_url)
    found = []
    for entry in snapshot.shards("held-out"):
        with open_shard(snapshot, entry) as shard:
            blocks = [shard.read(index, index + 1) for index in range(shard.num_windows)]
        found += [(block.windows, block.targets, score(block.windows, block.targets)) for block in blocks]
    return found


def test_means_over_rows_equal_the_evaluation(scored, dataset_url, student_directory):
    whole = evaluate(load_student(student_directory), SoftTargetDataset(dataset_url, "held-out"))
    kl, loss = (np.concatenate([getattr(rows, name) for *_, rows in scored]) for name in ("kl_nats", "loss_nats"))
    assert np.nanmean(kl) == pytest.approx(whole.kl_nats, rel=1e-5)
    assert np.nanmean(loss) == pytest.approx(whole.loss_nats, rel=1e-5)


def test_errors_exist_at_rows_with_a_target_and_a_label(scored):
    for windows, targets, rows in scored:
        assert (np.isfinite(rows.kl_nats) == windows.has_target()).all()
        assert (np.isfinite(rows.loss_nats) == windows.has_label()).all()
        assert len(rows.probabilities) == len(targets.head_ids)


def test_probabilities_are_those_of_a_plain_forward_pass(scored, student_directory):
    model = load_student(student_directory).eval()
    windows, targets, rows = scored[0]
    positions = torch.tensor(windows.position_ids()).long()[None]
    with torch.no_grad():
        ids = torch.tensor(windows.token).long()[None]
        logits_SV = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
    plain = logits_SV.softmax(-1).numpy()[np.repeat(np.arange(len(windows.token)), targets.head_widths())]
    assert rows.probabilities == pytest.approx(plain[np.arange(len(plain)), targets.head_ids], rel=1e-4)


def test_a_student_of_another_vocabulary_is_refused(
    dataset_url, student_directory, write_dataset, tokenizer_info, tmp_path
):
    other = write_dataset(tmp_path / "other", {"train": [1]}, tokenizer=tokenizer_info(vocabulary="b" * 32))
    with pytest.raises(FingerprintMismatchError, match="vocabulary"):
        student_errors(student_directory, SoftTargetDataset(other).metadata)
