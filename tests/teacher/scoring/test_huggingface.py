"""Models of `transformers` against a plain forward of each part alone, in float32."""

import json
import logging

import numpy as np
import pytest
import torch
import transformers as tf
from random_teachers import CONFIGS, PACKED, VOCAB_SIZE, assert_targets_equal, plain_forward, random_model, scorer_of

from logitcask.schemas.format.scheme import ThresholdScheme, TopKScheme
from logitcask.teacher.model.loading import load_model
from logitcask.teacher.scoring.huggingface import load
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.text.packing import full_windows


def test_a_scorer_is_loaded_with_the_settings_of_its_spec(tiny_teacher, monkeypatch):
    spec = ScorerSpec(
        reference=str(tiny_teacher), device="cpu", dtype="bfloat16", scheme=TopKScheme(k=3), attention="eager",
        num_threads=torch.get_num_threads() + 1, batch_tokens=77, row_chunk=5, temperatures=(2.0,), num_ids=990,
    )  # fmt: skip
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    scorer = load(spec)
    assert used == [spec.num_threads]
    scorer.prepare_thread()
    assert used == [spec.num_threads] * 2
    environment = {name: scorer.environment[name] for name in ("dtype", "attention", "batch_tokens", "row_chunk")}
    assert environment == {"dtype": "bfloat16", "attention": "eager", "batch_tokens": 77, "row_chunk": 5}
    targets = scorer.score(full_windows(np.arange(20, dtype=np.int32), 10))
    assert (targets.head_widths() == 3).all()
    assert targets.head_ids.max() < 990
    assert list(targets.tempered_log_tails) == [2.0]


@pytest.mark.parametrize("name", CONFIGS)
def test_targets_equal_a_plain_forward_of_each_part_alone(name):
    model = random_model(name)
    scorer = scorer_of(model, ThresholdScheme(k=40), row_chunk=7)
    assert_targets_equal(scorer.score(PACKED), plain_forward(model, PACKED), PACKED)


@pytest.mark.parametrize("batch_tokens", [16, 4096])
def test_models_whose_parts_see_each_other_run_each_part_as_a_sequence(batch_tokens, caplog):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = tf.BloomConfig(vocab_size=VOCAB_SIZE, hidden_size=32, n_layer=1, n_head=4, initializer_range=0.3)
        model = tf.BloomForCausalLM(config).eval().requires_grad_(False)
    with caplog.at_level(logging.WARNING):
        scorer = scorer_of(model, ThresholdScheme(), batch_tokens=batch_tokens)
    assert "each document runs as a sequence" in caplog.text
    assert_targets_equal(scorer.score(PACKED), plain_forward(model, PACKED), PACKED)


def test_a_head_that_is_not_one_matrix_is_replaced_by_the_models_logits(caplog):
    model = random_model("llama")
    plain = model.forward

    def bent(**inputs):
        outputs = plain(**inputs)
        outputs.logits = outputs.logits.sin()
        return outputs

    model.forward = bent
    with caplog.at_level(logging.WARNING):
        scorer = scorer_of(model, ThresholdScheme())
    assert "its own logits are used" in caplog.text
    assert_targets_equal(scorer.score(PACKED), plain_forward(model, PACKED), PACKED)


def test_the_environment_states_what_moves_low_bits():
    environment = scorer_of(random_model("gemma2"), ThresholdScheme(), row_chunk=32).environment
    assert environment["dtype"] == "float32"
    assert environment["attention"] == "eager"
    assert environment["row_chunk"] == 32
    assert environment["device"]["kind"] == "cpu"
    assert environment["num_threads"] == torch.get_num_threads()
    assert set(environment["versions"]) >= {"torch", "transformers", "numpy"}


def test_a_device_map_changes_no_targets_and_is_recorded(untied_teacher, caplog):
    places = {"model": "cpu", "lm_head": "disk"}
    mapped = load_model(untied_teacher, device="cpu", device_map=json.dumps(places))
    scorers = [scorer_of(model, ThresholdScheme(k=4)) for model in (load_model(untied_teacher, device="cpu"), mapped)]
    assert "its own logits are used" in caplog.text
    assert [scorer.environment.get("device_map") for scorer in scorers] == [None, places]
    plain, spread = (scorer.score(full_windows(np.arange(20, dtype=np.int32), 20)) for scorer in scorers)
    assert plain.head_ids.tolist() == spread.head_ids.tolist()
    np.testing.assert_allclose(plain.head_log_probs, spread.head_log_probs, atol=1e-5)
