"""Held-out metrics against the plain definitions."""

import math
from itertools import pairwise

import pytest
import torch

from logitcask.student.data.collator import collate, targets_of
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.evaluation.evaluate import evaluate
from logitcask.student.losses.truncated_kl import truncated_kl


def test_means_are_over_all_positions_of_all_windows(dataset_url, tiny_student):
    dataset, model = SoftTargetDataset(dataset_url, "held-out"), tiny_student()
    batch = collate([dataset[index] for index in range(3)])
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    scored, labels = logits.flatten(0, 1)[batch["scored_rows"]], batch["labels"]
    labeled = labels >= 0
    log_p = scored.log_softmax(-1)[labeled, labels[labeled]]
    found = evaluate(model, dataset)
    assert found.num_windows == 3
    assert (found.num_targets, found.num_labels) == (len(labels), int(labeled.sum()))
    assert found.kl_nats == pytest.approx(truncated_kl(scored, targets_of(batch, 48)).mean().item(), rel=1e-5)
    assert found.loss_nats == pytest.approx(-log_p.mean().item(), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.loss_nats))
    assert found.teacher_loss_nats == pytest.approx(-batch["log_next"][labeled].mean().item(), rel=1e-5)
    hits = (scored.argmax(-1) == labels)[labeled]
    assert found.top1_agreement == pytest.approx(hits.double().mean().item())


def test_batching_does_not_change_the_values(dataset_url, tiny_student):
    dataset, model = SoftTargetDataset(dataset_url), tiny_student()
    one, many = evaluate(model, dataset), evaluate(model, dataset, batch_windows=5)
    assert one.kl_nats == pytest.approx(many.kl_nats, rel=1e-6)
    assert one.num_targets == many.num_targets


def test_the_number_of_windows_can_be_limited(dataset_url, tiny_student):
    assert evaluate(tiny_student(), SoftTargetDataset(dataset_url), num_windows=2).num_windows == 2


def test_the_models_mode_is_restored(dataset_url, tiny_student):
    model = tiny_student().train()
    evaluate(model, SoftTargetDataset(dataset_url), num_windows=1)
    assert model.training


def test_missing_values_are_null_in_json(dataset_url, tiny_student):
    found = evaluate(tiny_student(), SoftTargetDataset(dataset_url), num_windows=0).to_json()
    assert found["kl_nats"] is None
    assert found["num_targets"] == 0


def test_agreement_with_the_teacher_counts_ties_of_its_best(dataset_url, tiny_student):
    dataset, model = SoftTargetDataset(dataset_url, "held-out"), tiny_student()
    batch = collate([dataset[index] for index in range(3)])
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    best, targets = logits.flatten(0, 1)[batch["scored_rows"]].argmax(-1), targets_of(batch, 48)
    agreed = 0
    for row, (start, stop) in enumerate(pairwise(targets.head_offsets.tolist())):
        head = dict(zip(targets.head_ids[start:stop].tolist(), targets.head_log_probs[start:stop], strict=True))
        agreed += head.get(int(best[row]), -math.inf) == max(head.values())
    assert evaluate(model, dataset).teacher_agreement == pytest.approx(agreed / len(best))


def test_the_calibration_error_compares_confidence_and_accuracy_by_bin(dataset_url, tiny_student):
    dataset, model = SoftTargetDataset(dataset_url), tiny_student()
    batch = collate([dataset[index] for index in range(len(dataset))])
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    labeled = batch["labels"] >= 0
    confidence, best = logits.flatten(0, 1)[batch["scored_rows"]][labeled].softmax(-1).max(-1)
    hits = (best == batch["labels"][labeled]).double()
    error = 0.0
    for low in range(15):
        inside = (confidence >= low / 15) & (confidence < (low + 1) / 15)
        if inside.any():
            error += inside.double().mean() * (confidence[inside].double().mean() - hits[inside].mean()).abs()
    assert evaluate(model, dataset, batch_windows=4).calibration_error == pytest.approx(float(error), rel=1e-4)


def test_there_is_no_exact_kl_without_a_live_teacher(dataset_url, tiny_student):
    assert math.isnan(evaluate(tiny_student(), SoftTargetDataset(dataset_url, "held-out")).full_kl_nats)
