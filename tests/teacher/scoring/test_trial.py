"""What a trial of a model finds before a corpus is annotated with it."""

import logging

import numpy as np
import pytest
import torch
import transformers as tf
from random_teachers import SIZES, assert_targets_equal, plain_forward, random_windows, scorer_of

from logitcask.schemas.errors import TeacherError
from logitcask.schemas.format.scheme import ThresholdScheme
from logitcask.teacher.scoring.huggingface import HuggingFaceTrunk
from logitcask.teacher.scoring.sequences import ALONE, Grouping
from logitcask.teacher.scoring.trial import trial_ids

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0, 8.0, 16.0, 32.0],
    "original_max_position_embeddings": 16,
}


def built(config: tf.PreTrainedConfig, name: str = "AutoModelForCausalLM") -> tf.PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(tf, name).from_config(config) if "Auto" in name else getattr(tf, name)(config)
    return model.eval().requires_grad_(False)


def longrope() -> tf.PreTrainedModel:
    return built(tf.Phi3Config(**SIZES, original_max_position_embeddings=16, rope_parameters=LONGROPE))


@pytest.mark.parametrize("initializer_range", [0.02, 0.3])
@pytest.mark.parametrize("name", ["bert", "roberta", "electra", "xlm", "camembert", "big_bird", "rembert"])
def test_a_model_that_sees_the_future_is_refused(name, initializer_range):
    sizes = SIZES | {"initializer_range": initializer_range, "embedding_size": 32, "hidden_act": "gelu"}
    if name == "xlm":
        sizes = {"vocab_size": 307, "emb_dim": 32, "n_layers": 2, "n_heads": 4, "embed_init_std": 0.1, "init_std": 0.1}
    if name == "big_bird":
        sizes["attention_type"] = "original_full"
    with pytest.raises(TeacherError, match="is not causal"):
        HuggingFaceTrunk(built(tf.AutoConfig.for_model(name, **sizes)))


def test_an_encoder_as_decoder_is_accepted():
    model = built(tf.BertConfig(**SIZES, is_decoder=True))
    windows = random_windows([[9, 3], [20]])
    assert_targets_equal(scorer_of(model, ThresholdScheme()).score(windows), plain_forward(model, windows), windows)


@pytest.mark.parametrize("window_tokens", [60, None])
def test_parts_on_two_sides_of_a_rope_threshold_run_apart(window_tokens, caplog):
    model, windows = longrope(), random_windows([[5, 40], [7, 16], [17, 3], [60]])
    scorer = scorer_of(model, ThresholdScheme(k=40), window_tokens=window_tokens)
    with caplog.at_level(logging.WARNING):
        assert_targets_equal(scorer.score(windows), plain_forward(model, windows), windows)
    assert scorer.trunk.grouping == Grouping(thresholds=(16,))


def test_windows_below_the_threshold_need_no_separation(caplog):
    trunk = HuggingFaceTrunk(longrope(), window_tokens=16)
    assert trunk.grouping == Grouping()
    assert not caplog.records


class Llama(tf.LlamaForCausalLM):
    """Made wrong by `bend`, which gets the inputs and the hidden states of each forward pass."""

    def __init__(self, bend, config=None):
        super().__init__(config or tf.LlamaConfig(**SIZES))
        self.bend = bend
        self.model.register_forward_hook(self.bent, with_kwargs=True)

    def bent(self, module, args, inputs, outputs):
        outputs.last_hidden_state = self.bend(inputs["input_ids"], outputs.last_hidden_state)
        return outputs


def bent(bend) -> HuggingFaceTrunk:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HuggingFaceTrunk(Llama(bend).eval().requires_grad_(False))


def test_a_model_whose_rows_depend_on_the_batch_runs_each_part_alone(caplog):
    trunk = bent(lambda ids, states: states * ids.shape[0])
    assert trunk.grouping == ALONE
    assert "much slower" in caplog.text


def test_a_model_whose_rows_depend_on_padding_runs_each_part_alone():
    assert bent(lambda ids, states: states * ids.shape[1]).grouping == ALONE


def test_a_model_that_keeps_a_state_is_refused():
    calls = iter(range(1, 1000))
    with pytest.raises(TeacherError, match=r"is not causal|when it is asked again"):
        bent(lambda ids, states: states * next(calls))


def test_a_model_that_remembers_the_longest_part_is_refused():
    longest = [0]

    def remember(ids, states):
        longest[0] = max(longest[0], ids.shape[1])
        return states * (1 + (longest[0] > 30))

    trunk = bent(remember)
    trunk._config = {"sliding_window": 40}
    with pytest.raises(TeacherError, match="when it is asked again"):
        trunk._try_parts(60)


def test_future_seen_only_beyond_a_threshold_is_found():
    def peek(ids, states):
        return states + states.mean(dim=1, keepdim=True) if ids.shape[1] > 24 else states

    trunk = bent(peek)
    trunk._config = {"attention_chunk_size": 24}
    with pytest.raises(TeacherError, match=r"another token at position \d+ of 32"):
        trunk._try_parts(60)


def test_each_part_alone_is_a_plain_forward_whatever_the_model_allows():
    model, windows = longrope(), random_windows([[5, 40], [7, 16]])
    scorer = scorer_of(model, ThresholdScheme(k=40), each_part_alone=True)
    assert_targets_equal(scorer.score(windows), plain_forward(model, windows), windows)
    assert scorer.trunk.grouping == ALONE


def test_a_model_that_needs_other_inputs_is_refused():
    model = built(tf.T5Config(d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4, decoder_start_token_id=0),
                  "T5ForConditionalGeneration")  # fmt: skip
    with pytest.raises(TeacherError, match="cannot run on tokens alone"):
        HuggingFaceTrunk(model)


def test_trial_ids_control_nothing_and_differ():
    config = {"pad_token_id": 0, "text_config": {"eos_token_id": [1, 2]}, "image_token_index": 3, "hidden_size": 4}
    ids = trial_ids(20, config, 16, seed=1)
    assert sorted(ids) == list(range(4, 20))
    assert len(trial_ids(20, config, 50, seed=1)) == 50
    assert not np.array_equal(ids, trial_ids(20, config, 16, seed=2))


def test_two_long_parts_that_disturb_each_other_are_found():
    """As sparse attention that keeps a number of the sequence's tokens: right below it, and for one long part."""

    def crowd(ids, states):
        return states * (1 + (ids.shape[1] > 32))

    trunk = bent(crowd)
    trunk._config = {"sliding_window": 20}
    trunk._try_parts(32)
    assert trunk.grouping.parts == "batched"


def test_a_model_that_chooses_tokens_runs_each_part_alone():
    trunk = bent(lambda ids, states: states)
    trunk._config = {"index_topk": 20}
    trunk._try_parts(20)
    assert trunk.grouping == Grouping()
    trunk._try_parts(60)
    assert trunk.grouping == ALONE
