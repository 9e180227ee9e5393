"""NaN and infinity stop a job before its first unit, and the message names where they are."""

import pytest
import torch
from random_teachers import random_model

from logitcask.schemas.errors import TeacherError
from logitcask.teacher.scoring.huggingface import HuggingFaceTrunk


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_weight_that_is_not_finite_is_named(value):
    model = random_model("llama")
    model.model.layers[1].mlp.down_proj.weight[3, 5] = value
    with pytest.raises(TeacherError, match=r"model\.layers\.1\.mlp\.down_proj\.weight hold NaN"):
        HuggingFaceTrunk(model)


def test_a_weight_that_no_trial_token_uses_is_checked_too():
    model = random_model("phi")
    model.get_input_embeddings().weight[-1, 0] = torch.nan
    with pytest.raises(TeacherError, match="embed_tokens"):
        HuggingFaceTrunk(model)


def test_numbers_that_overflow_are_traced_to_the_first_module():
    model = random_model("llama")
    model.model.layers[1].mlp.up_proj.weight *= 1e38
    with pytest.raises(TeacherError, match=r"first in the output of model\.layers\.1\.mlp\.up_proj \(Linear\)"):
        HuggingFaceTrunk(model)
