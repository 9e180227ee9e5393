"""The scorer over a trunk: batches, chunks, kinds of rows, draws, checks and memory."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from random_teachers import (
    PACKED,
    VOCAB_SIZE,
    assert_targets_equal,
    plain_forward,
    random_model,
    random_windows,
    scorer_of,
)

from logitcask.schemas.errors import MemoryExhaustedError, NonFiniteError, UsageError, VocabularyError
from logitcask.schemas.format.scheme import (
    RandomSamplingScheme,
    ThresholdSamplingScheme,
    ThresholdScheme,
    TopKScheme,
    TopPScheme,
)
from logitcask.schemas.format.targets import Kind, Targets, Windows
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.trunk_scorer import TrunkScorer
from logitcask.teacher.text.packing import full_windows


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
    windows = replace(PACKED, kind=kind)
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
def test_sampling_at_an_extra_temperature_is_refused(scheme):
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


def test_a_teacher_that_gives_nan_is_an_error_with_the_documents_name():
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


SPEC = ScorerSpec(reference="made up", device="cpu", dtype="float32", scheme=TopKScheme(k=4))


class LogitTable:
    """An exact fake of a trunk: a row's logits follow from its token. The first `failures` calls run out of memory."""

    head = None
    vocab_size = num_inputs = 20
    max_part_tokens = None
    device = torch.device("cpu")
    environment: ClassVar = {"device": "cpu", "dtype": "float32", "attention": "none"}

    def __init__(self, failures: int = 0) -> None:
        self.logits_VV = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
        self.failures = failures
        self.calls: list[tuple[int, int, int]] = []

    def states(self, windows: Windows, rows: np.ndarray, *, batch_tokens: int, num_halvings: int) -> torch.Tensor:
        self.calls.append((windows.num_positions, batch_tokens, num_halvings))
        if len(self.calls) <= self.failures:
            raise torch.OutOfMemoryError("no room")
        return self.logits_VV[torch.from_numpy(windows.token[rows]).long()]


def test_another_engine_needs_only_a_trunk():
    windows = full_windows(np.arange(20, dtype=np.int32), 5)
    trunk = LogitTable()
    scorer = TrunkScorer(trunk, replace(SPEC, batch_tokens=10))
    assert_targets_equal(scorer.score(windows), trunk.logits_VV.double().log_softmax(-1).numpy(), windows)
    assert trunk.calls == [(10, 10, 0)] * 2
    assert scorer.environment["attention"] == "none"


@pytest.mark.parametrize(("num_halvings", "can_halve"), [(0, True), (4, True), (5, False)])
def test_memory_errors_say_whether_smaller_pieces_can_be_tried(num_halvings, can_halve):
    scorer = TrunkScorer(LogitTable(failures=1), SPEC)
    scorer.num_halvings = num_halvings
    windows = full_windows(np.arange(20, dtype=np.int32), 20)
    with pytest.raises(MemoryExhaustedError, match=r"out of memory at 20 positions \(1 windows\).*no room") as error:
        scorer.score(windows)
    assert error.value.can_halve == can_halve
    assert scorer.score(windows).num_positions == 20
