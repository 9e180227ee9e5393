"""A live teacher whose output is wider than its tokenizer: padding gets no probability, as in the shards."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from annotated import NUM_IDS, two_parts, write_scored_dataset
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.quantizer import STEPS_PER_NAT, quantize_head
from logitcask.schemas.format.scheme import TopKScheme
from logitcask.schemas.format.targets import TargetRows, Windows
from logitcask.student.data.collator import Batch, collate
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.data.mixture import MixedDataset
from logitcask.student.evaluation.evaluate import evaluate
from logitcask.student.losses.full_kl import linear_full_kl
from logitcask.student.model.projection import hidden_states, output_projection
from logitcask.student.online.run import live_teacher, online_trainer
from logitcask.student.settings import TrainSettings
from logitcask.teacher.model.loading import load_model

PADDED = 1280
SCHEME = TopKScheme(k=40)


def random_llama(seed: int) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=PADDED, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.3, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config)


@pytest.fixture(scope="module")
def padded_teacher(sentencepiece_model, tmp_path_factory) -> str:
    """1,280 rows of random weights, 1,000 ids in the tokenizer."""
    directory = tmp_path_factory.mktemp("padded")
    random_llama(0).save_pretrained(directory)
    shutil.copy(sentencepiece_model / "tokenizer.model", directory)
    return str(directory)


@pytest.fixture(scope="module")
def annotate(padded_teacher):
    """`annotate(out, num_ids)`: writes a dataset of three windows like `logitcask annotate`; returns its directory."""

    def write(out: Path, num_ids: int | None) -> str:
        windows = Windows.concatenate([two_parts(number, second_at=8) for number in range(3)])
        return write_scored_dataset(str(out), padded_teacher, SCHEME, {"train": windows}, num_ids=num_ids)

    return write


@pytest.fixture(scope="module")
def dataset(annotate, tmp_path_factory) -> SoftTargetDataset:
    return SoftTargetDataset(annotate(tmp_path_factory.mktemp("annotated"), NUM_IDS))


@pytest.fixture
def settings(dataset, padded_teacher):
    """`settings(online_targets)`: settings of a run whose student is not used."""
    return lambda targets: TrainSettings(
        datasets=(dataset.url,), student="none", out="none", online=padded_teacher, online_targets=targets, device="cpu"
    )


def by_row_and_id(targets: TargetRows, values: np.ndarray) -> list[np.ndarray]:
    """Rows, ids and values of all head entries, in one order."""
    rows = np.repeat(np.arange(len(targets.head_offsets) - 1), np.diff(targets.head_offsets))
    order = np.lexsort((targets.head_ids, rows))
    return [column[order] for column in (rows, targets.head_ids, values)]


def test_live_targets_equal_those_of_the_shards(dataset, settings):
    scorer = online_trainer(settings("stored"), dataset).keywords["scorer"]
    for sample in (dataset[index] for index in range(len(dataset))):
        live, stored = scorer.score(sample.windows), sample.targets
        rows, ids, steps = by_row_and_id(live, quantize_head(live.head_log_probs).astype(int))
        stored_rows, stored_ids, stored_steps = by_row_and_id(stored, stored.head_q.astype(int))
        assert (rows == stored_rows).all()
        assert (ids == stored_ids).all()
        # A value between two bytes may round to either: windows that are scored alone differ in their low bits.
        np.testing.assert_allclose(steps, stored_steps, atol=1)
        np.testing.assert_allclose(live.log_next, stored.log_next, atol=1 / STEPS_PER_NAT)


def test_the_kl_of_the_buckets_is_not_above_the_exact_kl(dataset, padded_teacher):
    teacher = live_teacher(padded_teacher, "float32", dataset, "cpu")
    other = evaluate(random_llama(1), dataset, teacher=teacher)
    assert other.full_kl_nats > other.kl_nats > 0
    # This student differs from the teacher only in the padding: both KLs measure the same difference.
    itself = evaluate(load_model(padded_teacher, "float32", "cpu"), dataset, teacher=teacher)
    assert itself.kl_nats > 0.01
    assert itself.full_kl_nats > itself.kl_nats - 2e-4  # the error of quantization


def own_kl(teacher: PreTrainedModel, batch: Batch, log_p_TV: torch.Tensor) -> torch.Tensor:
    """By the teacher's own logits of the tokenizer's ids, in float64."""
    with torch.no_grad():
        own = teacher(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    log_t_TV = own.flatten(0, 1)[batch["scored_rows"], :NUM_IDS].double().log_softmax(-1)
    return (log_t_TV.exp() * (log_t_TV - log_p_TV)).sum(-1)


def test_full_distillation_is_the_dense_definition_over_the_tokenizers_ids(dataset, settings, padded_teacher):
    batch, student = collate([dataset[0], dataset[1]]), random_llama(1)
    teacher_logits = online_trainer(settings("full"), dataset).keywords["teacher"].logits_of(batch)
    rows, projection = batch["scored_rows"], output_projection(student)
    hidden_TD = hidden_states(student, batch["input_ids"], batch["position_ids"]).flatten(0, 1)[rows].detach()
    dense_TD = hidden_TD.double().requires_grad_()
    found = linear_full_kl(
        hidden_TD.requires_grad_(), projection.weight, projection.bias, teacher_logits, PADDED,
        labels_T=batch["labels"], chunk_rows=8,
    )  # fmt: skip
    log_p_TV = (dense_TD @ projection.weight.detach().double().T).log_softmax(-1)[:, :NUM_IDS]
    kl_T = own_kl(load_model(padded_teacher, "float32", "cpu"), batch, log_p_TV)
    torch.testing.assert_close(found.kl.double(), kl_T, rtol=1e-4, atol=1e-5)
    found.loss.backward()
    kl_T.sum().backward()
    torch.testing.assert_close(hidden_TD.grad.double(), dense_TD.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("targets", ["stored", "full"])
def test_datasets_with_different_padding_have_no_common_live_teacher(dataset, annotate, settings, tmp_path, targets):
    mixed = MixedDataset([dataset, SoftTargetDataset(annotate(tmp_path, None))])
    with pytest.raises(UsageError, match=r"different ids \(.*: 1000 ids, .*: all ids\)"):
        online_trainer(settings(targets), mixed)
