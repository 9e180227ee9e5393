"""Tail treatments: where the mass goes. `test_divergences` tests the resulting losses."""

import math
from dataclasses import replace

import pytest
import torch
from one_row import one_row, random_row

from logitcask.student.losses.tail_treatments import at_temperature, renormalized, residual_to_label, with_label_bucket
from logitcask.student.losses.targets import NO_LABEL, RaggedTargets
from logitcask.student.losses.truncated_kl import truncated_kl


def masses(targets: RaggedTargets) -> dict[int, float]:
    pairs = zip(targets.head_ids.tolist(), targets.head_log_probs.exp().tolist(), strict=True)
    return {id_: pytest.approx(mass, abs=1e-7) for id_, mass in pairs}


def test_the_residual_goes_to_a_label_outside_the_head():
    targets = residual_to_label(one_row({2: 0.5, 7: 0.3}), torch.tensor([4]))
    assert masses(targets) == {2: 0.5, 4: 0.2, 7: 0.3}
    assert targets.log_tail.item() == -math.inf


def test_the_residual_is_added_to_a_label_in_the_head():
    assert masses(residual_to_label(one_row({2: 0.5, 7: 0.3}), torch.tensor([7]))) == {2: 0.5, 7: 0.5}


def test_a_row_without_a_label_keeps_its_other_bucket():
    targets = residual_to_label(one_row({2: 0.5, 7: 0.3}), torch.tensor([NO_LABEL]))
    assert masses(targets) == {2: 0.5, 7: 0.3}
    assert targets.log_tail.exp().item() == pytest.approx(0.2)


def test_a_label_outside_the_head_takes_its_mass_from_the_bucket():
    targets = with_label_bucket(one_row({2: 0.5, 7: 0.3}, math.log(0.05)), torch.tensor([4]))
    assert masses(targets) == {2: 0.5, 4: 0.05, 7: 0.3}
    assert targets.log_tail.exp().item() == pytest.approx(0.15)


def test_a_label_in_the_head_changes_nothing():
    targets = with_label_bucket(one_row({2: 0.5, 7: 0.3}, math.log(0.3)), torch.tensor([7]))
    assert masses(targets) == {2: 0.5, 7: 0.3}
    assert targets.log_tail.exp().item() == pytest.approx(0.2)


def test_a_label_whose_rounded_mass_exceeds_the_tail_takes_all_of_it():
    targets = with_label_bucket(one_row({2: 0.5, 7: 0.3}, math.log(0.2001)), torch.tensor([4]))
    assert masses(targets) == {2: 0.5, 4: 0.2, 7: 0.3}
    assert targets.log_tail.item() == -math.inf
    assert truncated_kl(random_row(), targets).isfinite().all()


def test_the_labels_bucket_needs_its_probability():
    with pytest.raises(ValueError, match="log_next"):
        with_label_bucket(replace(one_row({2: 0.5}), log_next=None), torch.tensor([4]))


def test_renormalizing_keeps_the_tail_of_a_row_without_a_head():
    targets = renormalized(one_row({}))
    assert targets.log_tail.item() == 0
    assert truncated_kl(random_row(), targets).item() == pytest.approx(0, abs=1e-12)


def test_a_temperature_that_is_not_stored_is_refused():
    with pytest.raises(ValueError, match="no tail at temperature 2"):
        at_temperature(one_row({2: 0.5}), 2.0)
