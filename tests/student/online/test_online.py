"""A live teacher as the reference of cached runs: equal within quantisation where the scheme is the same."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from annotated import commit_annotated, two_parts
from scorers import scorer_of
from transformers import BloomConfig, BloomForCausalLM, TrainingArguments

from logitcask.schemas import cli
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.snapshot_writer import write_snapshot
from logitcask.schemas.errors import UsageError, VocabularyError
from logitcask.schemas.format.scheme import TopKScheme
from logitcask.schemas.format.targets import Windows
from logitcask.student.data.collator import collate
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.evaluation.evaluate import evaluate
from logitcask.student.init import make_student
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.online.teacher import LiveTeacher
from logitcask.student.online.trainer import FullDistillationTrainer, LiveTargetsTrainer
from logitcask.student.training.trainer import SoftTargetTrainer
from logitcask.teacher.model.loading import load_model
from logitcask.teacher.text.tokenizers import load_tokenizer

SCHEME = TopKScheme(k=40)


@pytest.fixture(scope="module")
def dataset_url(tiny_teacher, tmp_path_factory) -> str:
    """The tiny teacher's own targets: four windows to train on, two held out."""
    out = tmp_path_factory.mktemp("annotated")
    records = []
    for split, numbers in (("train", range(4)), ("held-out", range(4, 6))):
        # The second part's first row has no target.
        windows = Windows.concatenate([two_parts(number, second_at=12, prompts=(12,)) for number in numbers])
        records.append(commit_annotated(str(out), str(tiny_teacher), SCHEME, split, windows))
    write_snapshot(str(out), complete=True, identity=Identity(), records=records, num_documents_in=0, rejected={})
    return str(out)


@pytest.fixture(scope="module")
def student(tiny_teacher, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("student") / "student"
    make_student.prune_teacher(str(tiny_teacher), directory, keep_layers=[0, 3])
    return directory


@pytest.fixture
def train(dataset_url, student, tiny_teacher, tmp_path):
    """`train(trainer class, **options)`: three steps; the trainer and the losses."""

    def run(trainer_class=SoftTargetTrainer, alpha=0.8, **options):
        from logitcask.student.model.load import load_student

        directory = tmp_path / trainer_class.__name__
        trainer = trainer_class(
            load_student(student),
            TrainingArguments(
                output_dir=str(directory), max_steps=3, per_device_train_batch_size=2, learning_rate=1e-3,
                logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no",
            ),
            train_dataset=SoftTargetDataset(dataset_url),
            alpha=alpha,
            tokenizer=load_tokenizer(tiny_teacher).info,
            **options,
        )  # fmt: skip
        trainer.train()
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        return trainer, [line for line in lines if "loss" in line]

    return run


def test_with_the_shards_scheme_a_live_teacher_gives_the_losses_of_the_shards(train, tiny_teacher):
    _, cached = train()
    scorer = scorer_of(load_model(tiny_teacher, "float32", "cpu"), SCHEME)
    _, live = train(LiveTargetsTrainer, scorer=scorer)
    # By a hair: what was stored was quantised first.
    assert live[0]["kl_nats"] != cached[0]["kl_nats"]
    # A quantised target differs by 1e-4 nats of KL on average (FORMAT.md).
    assert [line["loss"] for line in live] == pytest.approx([line["loss"] for line in cached], rel=2e-3)


def test_full_distillation_is_above_the_lower_bound_that_the_buckets_give(train, tiny_teacher):
    _, cached = train(alpha=1.0)
    _, full = train(FullDistillationTrainer, alpha=1.0, teacher=LiveTeacher.load(tiny_teacher, "float32", "cpu"))
    assert all(line["full_kl_nats"] == pytest.approx(line["loss"], rel=1e-5) for line in full)
    assert full[0]["full_kl_nats"] > cached[0]["kl_nats"]


def test_full_distillation_refuses_losses_it_does_not_have(train, tiny_teacher):
    with pytest.raises(UsageError, match="--online-targets stored"):
        train(FullDistillationTrainer, loss=LossSettings(tail="residual"), teacher=LiveTeacher.load(tiny_teacher))


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


def test_a_model_whose_parts_see_each_other_cannot_teach_live():
    bloom = BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.5))
    with pytest.raises(UsageError, match="train from shards"):
        LiveTeacher(bloom.eval())


def test_the_exact_kl_of_a_student_is_above_the_buckets(dataset_url, tiny_teacher, student):
    from logitcask.student.model.load import load_student

    dataset, model = SoftTargetDataset(dataset_url, "held-out"), load_student(student)
    found = evaluate(model, dataset, teacher=LiveTeacher.load(tiny_teacher, "float32", "cpu"))
    assert found.full_kl_nats > found.kl_nats > 0
    itself = evaluate(
        load_model(tiny_teacher, "float32", "cpu"), dataset, teacher=LiveTeacher.load(tiny_teacher, "float32", "cpu")
    )
    assert itself.full_kl_nats == pytest.approx(0, abs=1e-5)
    assert itself.kl_nats < 2e-4
    assert itself.teacher_agreement == 1
    assert itself.loss_nats == pytest.approx(itself.teacher_loss_nats, abs=1e-3)


@pytest.mark.slow
def test_the_commands_take_a_live_teacher(dataset_url, tiny_teacher, student, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["train", dataset_url, "--student", str(student), "--out", str(run), "--steps", "1", "--batch-windows", "2"]
    assert cli.main([*words, "--device", "cpu", "--online", str(tiny_teacher)]) == 0
    assert "full KL to the teacher" in capsys.readouterr().out
    assert cli.main(["eval", str(run), "--shards", dataset_url, "--online", str(tiny_teacher), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    after = json.loads((run / "results.json").read_text())["held_out"]["after"]
    assert measured == pytest.approx(after, rel=1e-4)
    assert measured["full_kl_nats"] > measured["kl_nats"]
    words[words.index(str(run))] = str(tmp_path / "stored")
    assert cli.main([*words, "--device", "cpu", "--online", str(tiny_teacher), "--online-targets", "stored"]) == 0


def test_a_live_teacher_of_another_size_is_refused(dataset_url, tiny_teacher, train):
    teacher = LiveTeacher.load(tiny_teacher, "float32", "cpu")
    teacher._head = replace(teacher._head, weight=teacher._head.weight[:990])
    with pytest.raises(VocabularyError, match="990 ids, the dataset's 1000"):
        train(FullDistillationTrainer, teacher=teacher)
