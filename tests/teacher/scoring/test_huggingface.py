"""The scorer against a plain forward of each part alone, in float32."""

import dataclasses
import itertools
import logging

import numpy as np
import pytest
import torch
import transformers as tf
from scorers import scorer_of

from logitcask.schemas.errors import NonFiniteError, UsageError, VocabularyError
from logitcask.schemas.format.scheme import (
    RandomSamplingScheme,
    ThresholdSamplingScheme,
    ThresholdScheme,
    TopKScheme,
    TopPScheme,
)
from logitcask.schemas.format.targets import Kind, Part, Targets, Windows

VOCAB_SIZE = 307
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
GEMMA_SIZES = {**SIZES, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6}
CONFIGS = {
    "gemma2": lambda: tf.Gemma2Config(**GEMMA_SIZES),
    "gemma3": lambda: tf.Gemma3TextConfig(**GEMMA_SIZES),
    # As Gemma 3 4B is published: the language model inside one that also sees.
    "gemma3 with vision": lambda: tf.Gemma3Config(
        text_config=tf.Gemma3TextConfig(**GEMMA_SIZES).to_dict(),
        vision_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        image_token_index=VOCAB_SIZE,
    ),
    "llama": lambda: tf.LlamaConfig(**SIZES),
    "qwen3": lambda: tf.Qwen3Config(**SIZES, head_dim=8),
    "mistral": lambda: tf.MistralConfig(**SIZES, sliding_window=5),
    "phi": lambda: tf.PhiConfig(**SIZES),  # has a bias in its head
    "cohere": lambda: tf.CohereConfig(**SIZES, logit_scale=0.25),
    "granite": lambda: tf.GraniteConfig(**SIZES, logits_scaling=3.0),
    "gpt2": lambda: tf.GPT2Config(
        vocab_size=VOCAB_SIZE, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3
    ),
}


def random_model(name: str) -> tf.PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tf.AutoModelForCausalLM.from_config(CONFIGS[name]())
        head = model.get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            torch.nn.init.normal_(head.bias)
    return model.eval().requires_grad_(False)


def random_windows(part_lengths: list[list[int]], seed: int = 0) -> Windows:
    """Windows of parts of the given lengths."""
    lengths = [length for window in part_lengths for length in window]
    return Windows(
        token=np.random.default_rng(seed).integers(VOCAB_SIZE, size=sum(lengths), dtype=np.int32),
        kind=np.zeros(sum(lengths), dtype=np.uint8),
        part=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        window_offsets=np.cumsum([0] + [sum(window) for window in part_lengths]),
        parts=tuple(Part(id=f"d{i}", source=f"corpus#{i}", offset=0) for i in range(len(lengths))),
    )


PACKED = random_windows([[9, 3, 12], [20], [1, 4, 1], [13, 11]])


def plain_forward(model: tf.PreTrainedModel, windows: Windows) -> np.ndarray:
    """log p of every row from each part alone, by the model's own forward, float64 [T, V]."""
    starts = [*np.flatnonzero(windows.part_starts()), windows.num_positions]
    rows = []
    for start, stop in itertools.pairwise(starts):
        ids = torch.from_numpy(windows.token[start:stop]).long()[None]
        rows.append(model(input_ids=ids).logits[0].double().log_softmax(-1))
    return torch.cat(rows).numpy()


def assert_targets_equal(targets: Targets, log_probs_TV: np.ndarray, windows: Windows) -> None:
    next_token = windows.next_token()
    for row in np.flatnonzero(windows.has_target()):
        expected, entries = log_probs_TV[row], slice(*targets.head_offsets[row : row + 2])
        ids = targets.head_ids[entries]
        np.testing.assert_allclose(targets.head_log_probs[entries], expected[ids], atol=1e-5)
        assert np.exp(expected[ids]).min() >= np.exp(np.delete(expected, ids)).max(initial=0) - 1e-6
        np.testing.assert_allclose(np.exp(targets.log_tail[row]), np.exp(np.delete(expected, ids)).sum(), atol=1e-5)
        np.testing.assert_allclose(targets.entropy[row], -(np.exp(expected) * expected).sum(), atol=1e-5)
        if next_token[row] >= 0:
            np.testing.assert_allclose(targets.log_next[row], expected[next_token[row]], atol=1e-5)
        assert targets.top1_ids[row] == expected.argmax()


@pytest.mark.parametrize("name", CONFIGS)
def test_targets_equal_a_plain_forward_of_each_part_alone(name):
    model = random_model(name)
    scorer = scorer_of(model, ThresholdScheme(k=40), row_chunk=7)
    assert_targets_equal(scorer.score(PACKED), plain_forward(model, PACKED), PACKED)


@pytest.mark.parametrize("num_halvings", [1, 5])
def test_a_window_in_smaller_pieces_has_the_same_targets(monkeypatch, num_halvings):
    monkeypatch.setattr("logitcask.teacher.scoring.sequences._SEQUENCE_TOKENS", 32)
    model = random_model("gemma2")
    scorer = scorer_of(model, ThresholdScheme(k=40), row_chunk=16, batch_tokens=64)
    scorer.num_halvings = num_halvings
    assert_targets_equal(scorer.score(PACKED), plain_forward(model, PACKED), PACKED)


@pytest.mark.parametrize("scheme", [ThresholdScheme(tau=0.02), TopKScheme(k=16), TopPScheme(p=0.6)])
def test_every_scheme_stores_all_of_the_mass(scheme):
    targets = scorer_of(random_model("llama"), scheme).score(PACKED)
    head = np.add.reduceat(np.exp(targets.head_log_probs), targets.head_offsets[:-1])
    np.testing.assert_allclose(head + np.exp(targets.log_tail), 1, atol=1e-5)


def test_batches_change_nothing():
    model = random_model("gemma2")
    whole = scorer_of(model, ThresholdScheme()).score(PACKED)
    alone = scorer_of(model, ThresholdScheme(), batch_tokens=1).score(PACKED)
    np.testing.assert_array_equal(alone.head_ids, whole.head_ids)
    np.testing.assert_allclose(alone.head_log_probs, whole.head_log_probs, atol=1e-5)


SAMPLING = [
    RandomSamplingScheme(draws=9, replicas=2),
    ThresholdSamplingScheme(theta=0.02, replicas=2),
]


@pytest.mark.parametrize("scheme", SAMPLING)
@pytest.mark.parametrize("sizes", [{"batch_tokens": 1}, {"row_chunk": 5}, {"batch_tokens": 30, "row_chunk": 1}])
def test_draws_depend_on_the_window_and_not_on_batch_or_chunk(scheme, sizes):
    model = random_model("gemma2")
    whole = scorer_of(model, scheme).score(PACKED)
    other = scorer_of(model, scheme, **sizes).score(PACKED)
    alone = [scorer_of(model, scheme, **sizes).score(PACKED.select(i, i + 1)) for i in range(4)]
    for targets in (other, Targets.concatenate(alone)):
        assert len(targets.tail_samples) == 2
        for sample, expected in zip(targets.tail_samples, whole.tail_samples, strict=True):
            np.testing.assert_array_equal(sample.ids, expected.ids)
            np.testing.assert_array_equal(sample.offsets, expected.offsets)


@pytest.mark.parametrize("scheme", SAMPLING)
def test_only_rows_with_a_target_are_drawn_for(scheme):
    kind = PACKED.kind.copy()
    kind[:5], kind[24:44] = Kind.CONTEXT, Kind.PROMPT
    windows = dataclasses.replace(PACKED, kind=kind)
    # The second window has no target at all.
    targets = scorer_of(random_model("llama"), scheme, batch_tokens=1).score(windows)
    for sample in targets.tail_samples:
        np.testing.assert_array_equal(np.diff(sample.offsets) > 0, windows.has_target())


def test_tails_at_extra_temperatures_equal_a_plain_forward():
    model = random_model("gemma2")
    targets = scorer_of(model, ThresholdScheme(tau=0.02), row_chunk=7, temperatures=(1, 4, 2)).score(PACKED)
    log_probs_TV = plain_forward(model, PACKED)
    assert list(targets.tempered_log_tails) == [2.0, 4.0]
    for temperature, log_tail in targets.tempered_log_tails.items():
        weights_TV = np.exp(log_probs_TV / temperature)
        mass = weights_TV.sum(1)
        weights_TV[np.repeat(np.arange(len(mass)), targets.head_widths()), targets.head_ids] = 0
        np.testing.assert_allclose(np.exp(log_tail), weights_TV.sum(1) / mass, atol=1e-5)


@pytest.mark.parametrize("scheme", SAMPLING)
def test_sampling_at_a_further_temperature_is_refused(scheme):
    with pytest.raises(UsageError, match="temperature 2 with"):
        scorer_of(random_model("llama"), scheme, temperatures=(2.0,))


def test_rows_without_target_get_empty_heads_and_no_numbers():
    kind = PACKED.kind.copy()
    kind[:5], kind[10] = Kind.CONTEXT, Kind.PROMPT
    windows = Windows(
        token=PACKED.token,
        kind=kind,
        part=PACKED.part,
        window_offsets=PACKED.window_offsets,
        parts=PACKED.parts,
    )
    model = random_model("qwen3")
    targets = scorer_of(model, ThresholdScheme()).score(windows)
    silent = ~windows.has_target()
    assert (targets.head_widths()[silent] == 0).all()
    assert np.isnan(targets.log_tail[silent]).all()
    assert np.isnan(targets.entropy[silent]).all()
    assert (targets.top1_ids[silent] == -1).all()
    np.testing.assert_array_equal(targets.has_label(), windows.has_label())
    assert_targets_equal(targets, plain_forward(model, windows), windows)


def test_windows_of_prompts_alone_never_reach_the_projection(monkeypatch):
    scorer = scorer_of(random_model("llama"), ThresholdScheme())
    monkeypatch.setattr(scorer, "_targets", None)
    windows = random_windows([[4], [5]])
    windows.kind[:] = Kind.PROMPT
    assert scorer.score(windows).num_positions == 9


def test_no_windows_give_no_targets():
    targets = scorer_of(random_model("llama"), ThresholdScheme()).score(PACKED.select(0, 0))
    assert targets.num_positions == 0


def test_bfloat16_weights_accumulate_in_float32():
    model = random_model("llama").to(torch.bfloat16)
    scorer = scorer_of(model, TopKScheme(k=VOCAB_SIZE))
    window = random_windows([[10]])
    targets = scorer.score(window)
    hidden = model.get_decoder()(input_ids=torch.from_numpy(window.token).long()[None]).last_hidden_state[0]
    expected = (hidden.double() @ model.lm_head.weight.double().T).log_softmax(-1).numpy()
    np.testing.assert_allclose(targets.head_log_probs.reshape(10, -1), expected, atol=1e-5)


def test_a_teacher_that_gives_nan_is_an_error_that_names_the_document():
    model = random_model("llama")
    scorer = scorer_of(model, ThresholdScheme())
    model.get_input_embeddings().weight[int(PACKED.token[PACKED.part == 2][0])] = float("nan")
    with pytest.raises(NonFiniteError, match=r"row 0 of document 'd\d' \(corpus#\d\)"):
        scorer.score(PACKED)


def test_tokens_outside_the_vocabulary_are_refused():
    windows = random_windows([[4]])
    windows.token[2] = VOCAB_SIZE
    with pytest.raises(VocabularyError, match="307"):
        scorer_of(random_model("llama"), ThresholdScheme()).score(windows)


def test_a_part_longer_than_the_teachers_context_is_refused():
    with pytest.raises(UsageError, match="65 tokens exceeds the 64"):
        scorer_of(random_model("gpt2"), ThresholdScheme()).score(random_windows([[65]]))


@pytest.mark.parametrize("batch_tokens", [16, 4096])
def test_models_that_cannot_be_packed_run_each_part_alone(batch_tokens, caplog):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = tf.BloomConfig(vocab_size=VOCAB_SIZE, hidden_size=32, n_layer=1, n_head=4, initializer_range=0.3)
        model = tf.BloomForCausalLM(config).eval().requires_grad_(False)
    with caplog.at_level(logging.WARNING):
        scorer = scorer_of(model, ThresholdScheme(), batch_tokens=batch_tokens)
    assert "each runs alone" in caplog.text
    assert_targets_equal(scorer.score(PACKED), plain_forward(model, PACKED), PACKED)


def test_a_head_that_is_no_plain_matrix_falls_back_to_the_models_own_logits(caplog):
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


def test_the_environment_says_what_moves_low_bits():
    environment = scorer_of(random_model("gemma2"), ThresholdScheme(), row_chunk=32).environment
    assert environment["dtype"] == "float32"
    assert environment["attention"] == "eager"
    assert environment["row_chunk"] == 32
    assert environment["device"]["kind"] == "cpu"
    assert environment["num_threads"] == torch.get_num_threads()
    assert set(environment["versions"]) >= {"torch", "transformers", "numpy"}


def test_padding_of_the_vocabulary_gets_no_probability():
    model = random_model("llama")
    num_ids = scorer_of(model, ThresholdScheme()).vocab_size - 3
    targets = scorer_of(model, TopKScheme(k=num_ids), num_ids=num_ids).score(PACKED)
    assert targets.head_ids.max() == num_ids - 1
    assert (targets.log_tail[targets.has_target()] == -np.inf).all()
    sums = np.add.reduceat(np.exp(targets.head_log_probs), targets.head_offsets[:-1][targets.head_widths() > 0])
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_measuring_rows_changes_no_target_and_counts_those_with_one():
    scorer = scorer_of(random_model("llama"), ThresholdScheme(), row_chunk=7)
    measured_T = PACKED.window_index() == 1
    targets, measured = scorer.score_and_measure(PACKED, measured_T)
    assert measured.rows == (measured_T & PACKED.has_target()).sum()
    assert scorer.score(PACKED).head_log_probs.tobytes() == targets.head_log_probs.tobytes()
