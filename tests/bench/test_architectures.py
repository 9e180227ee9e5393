"""A cross-section of the architectures of `transformers`: right targets, or a refusal. The bench tries them all."""

import sys
from pathlib import Path

import pytest
from repository import ROOT

sys.path.insert(0, str(ROOT / "bench"))

from architectures import Outcome, page, tried

# Packed and not, experts, sliding windows, scales and soft-caps, ALiBi, state spaces, latent attention, chosen tokens,
# a decoder inside a larger model.
RIGHT = [
    *("bloom", "deepseek_v3", "falcon_h1", "gemma2", "gemma3_text", "glm_moe_dsa", "gpt_oss", "granite", "llama4_text"),
    *("mamba2", "mllama", "opt", "phi3", "qwen3_next", "rembert", "rwkv"),
]
REFUSED = ["camembert", "cpmant", "xlm", "xlnet"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]


@pytest.mark.parametrize("model_type", RIGHT)
def test_targets_equal_a_plain_forward_of_each_part_alone(model_type: str, tmp_path: Path) -> None:
    outcome = tried(model_type, tmp_path)
    assert outcome.error is not None, outcome
    assert outcome.is_right, outcome


@pytest.mark.parametrize("model_type", REFUSED)
def test_models_that_see_the_future_are_refused(model_type: str, tmp_path: Path) -> None:
    assert "is not causal" in tried(model_type, tmp_path).refusal


def test_the_page_states_what_was_found() -> None:
    found = [
        Outcome(model_type="a", class_name="A", error=2e-6, parts="documents share windows"),
        Outcome(model_type="b", class_name="B", refusal="TeacherError: teacher 'tmpx1' is | not causal"),
        Outcome(model_type="c", class_name="C", not_tried="ValueError: too large"),
    ]
    assert "1 give the targets of a plain forward pass, 1 are refused with the reason, and 1 could not" in page(found)
    assert "| a | A | 2e-06 | documents share windows |\n" in page(found)
    assert "| b | B | refused | teacher it is / not causal |\n" in page(found)
    assert "| c | C | – | not tried: ValueError: too large |\n" in page(found)
