"""A live teacher: its logits are the model's own."""

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from logitcask.schemas.errors import UsageError
from logitcask.student.data.collator import collate
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.evaluation.evaluate import evaluate
from logitcask.student.model.load import load_student
from logitcask.student.online.teacher import LiveTeacher
from logitcask.teacher.model.loading import load_model


def test_a_live_teacher_gives_the_models_own_logits(dataset_url, tiny_teacher):
    model = load_model(tiny_teacher, "float32", "cpu")
    sample = SoftTargetDataset(dataset_url)[1]
    rows = LiveTeacher(model).logits_of(collate([sample]))(0, 22)
    own = []
    for start in (0, 12):  # each part alone
        ids = torch.tensor(sample.windows.token[start : start + 12].tolist()).unsqueeze(0)
        with torch.no_grad():
            own.append(model(input_ids=ids, use_cache=False).logits[0])
    scored = sample.targets.has_target()
    torch.testing.assert_close(rows, torch.cat(own)[torch.from_numpy(scored)][:22], atol=1e-4, rtol=1e-4)


def test_a_model_whose_parts_see_each_other_is_no_live_teacher():
    bloom = BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.5))
    with pytest.raises(UsageError, match="train from shards"):
        LiveTeacher(bloom.eval())


def test_the_exact_kl_of_a_student_is_above_the_bucket_kl(dataset_url, tiny_teacher, pruned_student):
    dataset, model = SoftTargetDataset(dataset_url, "held-out"), load_student(pruned_student)
    found = evaluate(model, dataset, teacher=LiveTeacher.load(tiny_teacher, "float32", "cpu"))
    assert found.full_kl_nats > found.kl_nats > 0
    itself = evaluate(
        load_model(tiny_teacher, "float32", "cpu"), dataset, teacher=LiveTeacher.load(tiny_teacher, "float32", "cpu")
    )
    assert itself.full_kl_nats == pytest.approx(0, abs=1e-5)
    assert itself.kl_nats < 2e-4
    assert itself.teacher_agreement == 1
    assert itself.loss_nats == pytest.approx(itself.teacher_loss_nats, abs=1e-3)
