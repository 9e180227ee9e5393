"""Settings of the loss: undefined combinations, and shards that lack what a loss needs, are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.targets import TailSample, Targets
from logitcask.student.losses.divergences import SampledCrossEntropy, forward_kl
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.losses.targets import NO_LABEL, RaggedTargets


def stored(num_head: int = 2, sampled: bool = False, temperatures: tuple[float, ...] = ()) -> Targets:
    """One row: head ids 0, 1 of probability 0.4 each, or no head; the rest in the tail."""
    tail = 1 - 0.4 * num_head
    return Targets(
        head_ids=np.arange(num_head, dtype=np.int32),
        head_log_probs=np.full(num_head, np.log(0.4), np.float32),
        head_offsets=np.array([0, num_head]),
        log_tail=np.array([np.log(tail)], np.float32),
        log_next=np.array([np.log(0.1)], np.float32),
        entropy=None,
        tail_samples=(TailSample(ids=np.array([4, 5], np.int32), offsets=np.array([0, 2])),) if sampled else (),
        tempered_log_tails={t: np.array([np.log(0.5)], np.float32) for t in temperatures},
    )


def ragged(targets: Targets) -> RaggedTargets:
    sample = targets.tail_samples[0] if targets.tail_samples else None
    return RaggedTargets(
        head_ids=torch.from_numpy(targets.head_ids).long(),
        head_log_probs=torch.from_numpy(targets.head_log_probs),
        head_offsets=torch.from_numpy(targets.head_offsets),
        log_tail=torch.from_numpy(targets.log_tail),
        log_next=torch.from_numpy(targets.log_next),
        vocab_size=9,
        sample_ids=torch.from_numpy(sample.ids).long() if sample else None,
        sample_offsets=torch.from_numpy(sample.offsets) if sample else None,
        tempered_log_tails={t: torch.from_numpy(tail) for t, tail in targets.tempered_log_tails.items()},
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "above 0"),
        ({"jsd_beta": 1.0}, "jsd_beta"),
        ({"sample_share": 0.0}, "sample_share"),
        ({"tail": "renormalize", "divergence": "reverse"}, "choose forward or jsd"),
        ({"tail": "sample", "divergence": "jsd"}, "choose forward"),
        ({"tail": "sample", "temperature": 2.0}, "drawn at temperature 1 and do not fit"),
        ({"tail": "blend", "temperature": 2.0, "tempering": "head"}, "drawn at temperature 1 and do not fit"),
        ({"divergence": "jsd", "temperature": 2.0, "tempering": "head"}, "inside the head"),
    ],
)
def test_undefined_combinations_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        LossSettings(**options)


@pytest.mark.parametrize(
    ("options", "shards", "message"),
    [
        ({"tail": "sample"}, stored(), "--head threshold-sampling"),
        ({"tail": "blend"}, stored(), "--head threshold-sampling"),
        ({"tail": "other"}, stored(num_head=0, sampled=True), "train with tail 'sample'"),
        ({"tail": "residual"}, stored(num_head=0, sampled=True), "train with tail 'sample'"),
        ({"tail": "blend"}, stored(num_head=0, sampled=True), "train with tail 'sample'"),
        ({"temperature": 2.0}, stored(temperatures=(4.0,)), r"stored: 4\); annotate with --temperatures 2"),
    ],
)
def test_shards_without_what_the_loss_needs_are_refused(options, shards, message):
    with pytest.raises(UsageError, match=message):
        LossSettings(**options).check_shards(shards)


@pytest.mark.parametrize(
    ("options", "shards"),
    [
        ({}, stored(sampled=True)),
        ({"tail": "sample"}, stored(num_head=0, sampled=True)),
        ({"tail": "blend"}, stored(sampled=True)),
        ({"temperature": 2.0}, stored(temperatures=(2.0,))),
        ({"temperature": 2.0, "tempering": "head"}, stored()),
    ],
)
def test_shards_with_everything_the_loss_needs_pass(options, shards):
    LossSettings(**options).check_shards(shards)


def test_the_default_changes_nothing_except_dropping_the_sample():
    targets, labels = ragged(stored(sampled=True)), torch.tensor([3])
    prepared = LossSettings().prepare_targets(targets, labels)
    assert prepared.head_ids is targets.head_ids
    assert prepared.log_tail is targets.log_tail
    assert prepared.sample_ids is None
    assert LossSettings().divergence_function() is forward_kl


def test_a_blend_keeps_the_sample_and_its_share():
    settings = LossSettings(tail="blend", sample_share=0.25)
    assert settings.divergence_function() == SampledCrossEntropy(share=0.25)
    targets = ragged(stored(sampled=True))
    assert settings.prepare_targets(targets, torch.tensor([NO_LABEL])).sample_ids is targets.sample_ids


def test_only_an_exact_temperature_divides_the_logits():
    exact = LossSettings(temperature=2.0)
    assert exact.logits_temperature == 2.0
    assert replace(exact, tempering="head").logits_temperature == 1.0
    targets = ragged(stored(temperatures=(2.0,)))
    assert exact.prepare_targets(targets, torch.tensor([3])).log_tail.exp().item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "metric"),
    [({}, "kl_nats"), ({"tail": "sample"}, "teacher_cross_entropy_nats"), ({"divergence": "jsd"}, "jsd_nats")],
)
def test_logs_name_what_is_measured(options, metric):
    assert LossSettings(**options).metric == metric
