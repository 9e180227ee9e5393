"""A whole run: its files, its resumption, its datasets, its refusals."""

import hashlib
import json
import runpy
import shutil
from pathlib import Path

import fsspec
import pytest
import safetensors.torch
import torch
from repository import ROOT
from train_command import train_words
from transformers import AutoModelForCausalLM

from logitcask.schemas import cli
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.errors import UsageError
from logitcask.student.model.load import load_student
from logitcask.student.settings import TrainSettings
from logitcask.student.training.run import _student, train
from logitcask.student.training.trainer import SoftTargetTrainer
from logitcask.teacher.text.tokenizers import load_tokenizer


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(directory).state_dict()


def test_results_hold_the_evaluation_before_and_after(finished_run):
    results = json.loads((finished_run / "results.json").read_text())
    before, after = results["held_out"]["before"], results["held_out"]["after"]
    assert before["num_windows"] == after["num_windows"] == 2
    assert after["kl_nats"] < before["kl_nats"]
    assert results["steps"] == 3


def test_metrics_have_a_line_per_step(finished_run):
    lines = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert all(line["tokens_per_second"] > 0 and line["grad_norm"] > 0 for line in steps)


def test_the_resolved_settings_are_written_with_the_run(finished_run):
    settings = json.loads((finished_run / "train.json").read_text())
    assert settings["snapshot"] == [1]
    assert settings["lr"] == 5e-4


def test_a_killed_run_resumes_to_the_same_weights(finished_run, run_dataset, pruned_student, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    shutil.rmtree(run / "student")
    shutil.rmtree(run / "checkpoint-3")
    assert cli.main(train_words(run_dataset, pruned_student, run, "--save-every", "2", "--resume")) == 0
    whole = weights_of(finished_run / "student")
    for name, tensor in weights_of(run / "student").items():
        assert torch.equal(tensor, whole[name]), name


def test_resuming_at_another_learning_rate_is_refused_and_not_saved(
    finished_run, run_dataset, pruned_student, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    words = train_words(run_dataset, pruned_student, run, "--save-every", "2", "--resume", "--lr", "0.1")
    assert cli.main(words) == 1
    assert "learning_rate (was 0.0005, now 0.1)" in capsys.readouterr().err
    assert json.loads((run / "train.json").read_text())["lr"] == 5e-4


class Watched(SoftTargetTrainer):
    """Records the dtype of each training pass through the first feed-forward layer, and keeps the latest trainer."""

    latest: "Watched"

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.passes: list[torch.dtype] = []
        self.model.get_submodule("model.layers.0.mlp").register_forward_hook(
            lambda module, _, output: self.passes.append(output.dtype) if module.training else None
        )
        Watched.latest = self


@pytest.fixture
def watched(monkeypatch) -> type[Watched]:
    monkeypatch.setattr("logitcask.student.training.run.SoftTargetTrainer", Watched)
    return Watched


def test_flags_of_memory_reading_and_order_reach_the_trainer(run_dataset, pruned_student, tmp_path, watched):
    fsspec.filesystem("memory").put(run_dataset, "/flags", recursive=True)
    more = (
        "--gradient-checkpointing",
        "--workers",
        "1",
        "--shuffle-windows",
        "8",
        "--copies",
        str(tmp_path / "copies"),
    )
    assert cli.main(train_words("memory://flags", pruned_student, tmp_path / "run", "--eval-windows", "1", *more)) == 0
    fsspec.filesystem("memory").rm("/flags", recursive=True)
    trainer = watched.latest
    assert len(trainer.passes) == 2 * 3 * 2  # in forward and backward, three steps of two micro-batches
    assert trainer.get_train_dataloader().num_workers == 1
    assert trainer.global_batches.order.buffer_windows == 8
    copied = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "copies").iterdir()}
    assert copied == {entry.digest.removeprefix("sha256:") for entry in load_snapshot(run_dataset).shards()}


def test_a_run_in_bfloat16_exports_float32(run_dataset, pruned_student, tmp_path, watched):
    flags = ("--dtype", "bfloat16", "--eval-windows", "1")
    assert cli.main(train_words(run_dataset, pruned_student, tmp_path / "run", *flags)) == 0
    assert watched.latest.passes == [torch.bfloat16] * 3 * 2
    exported = safetensors.torch.load_file(tmp_path / "run" / "student" / "model.safetensors")
    assert {tensor.dtype for tensor in exported.values()} == {torch.float32}


def test_a_directory_with_a_run_is_refused_without_resume(finished_run, run_dataset, pruned_student, capsys):
    assert cli.main(train_words(run_dataset, pruned_student, finished_run)) == 1
    printed = " ".join(capsys.readouterr().err.split())
    assert "already holds a training run, which is finished" in printed
    assert printed.endswith("continue it with the same settings and --resume")


def test_a_directory_with_other_files_is_refused(run_dataset, pruned_student, tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("mine")
    assert cli.main(train_words(run_dataset, pruned_student, tmp_path)) == 1
    assert "not a training run" in capsys.readouterr().err


def test_a_directory_without_a_student_is_a_usage_error(run_dataset, tmp_path, capsys):
    assert cli.main(train_words(run_dataset, tmp_path / "nothing", tmp_path / "run")) == 2
    assert "logitcask student init" in capsys.readouterr().err


def test_a_student_with_another_vocabulary_is_refused(dataset_url, pruned_student, tmp_path, capsys):
    assert cli.main(train_words(dataset_url, pruned_student, tmp_path / "run")) == 1
    err = capsys.readouterr().err
    assert load_tokenizer(pruned_student).info.vocabulary_fingerprint in err
    assert "a" * 32 in err
    assert not (tmp_path / "run").exists()


def test_a_run_mixes_several_datasets_by_weight(
    run_dataset, richer_dataset, pruned_student, tmp_path, write_dataset, tiny_teacher
):
    other = write_dataset(
        tmp_path / "other", {"train": [3]}, seed=4, tokenizer=load_tokenizer(tiny_teacher).info, vocab_size=1000
    )
    words = train_words(
        run_dataset, pruned_student, tmp_path / "run", "--weights", "3", "1", "--schedule", "wsd", "--decay-steps", "1"
    )
    assert cli.main([words[0], other, *words[1:]]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["weights"] == [3.0, 1.0]
    assert results["num_windows"] == [3, 6]
    assert results["held_out"]["after"]["num_windows"] == 2  # only one of the two datasets has held-out windows


def test_a_dataset_without_held_out_windows_trains_without_evaluation(
    write_dataset, tiny_teacher, pruned_student, tmp_path, capsys
):
    url = write_dataset(tmp_path / "data", {"train": [2]}, tokenizer=load_tokenizer(tiny_teacher).info, vocab_size=1000)
    settings = TrainSettings(
        datasets=(url,), student=str(pruned_student), out=str(tmp_path / "run"), batch_windows=1, device="cpu"
    )
    result = train(settings)
    assert result.before is None
    assert result.steps == 2  # one epoch
    assert "no held-out windows" in capsys.readouterr().err


def test_the_library_example_trains_a_student(run_dataset, pruned_student, tmp_path, monkeypatch, capsys):
    example = ROOT / "examples" / "train_student.py"
    monkeypatch.setattr("sys.argv", [str(example), run_dataset, str(pruned_student), str(tmp_path)])
    runpy.run_path(str(example))
    before, after = (float(line.split()[1]) for line in capsys.readouterr().out.splitlines() if ":" in line)
    assert after < before
    AutoModelForCausalLM.from_pretrained(tmp_path / "student")


@pytest.mark.parametrize(
    ("flags", "metric", "recorded"),
    [
        ("--tail blend --sample-share 0.3 --alpha 0.5", "teacher_cross_entropy_nats", {"sample_share": 0.3}),
        ("--tail label --divergence reverse", "reverse_kl_nats", {"tail": "label", "divergence": "reverse"}),
        ("--temperature 2 --alpha 0.5", "kl_nats", {"temperature": 2.0, "tempering": "exact"}),
        ("--temperature 2 --tempering head", "kl_nats", {"tempering": "head"}),
    ],
)
def test_a_run_minimizes_the_chosen_loss_and_records_it(
    richer_dataset, pruned_student, tmp_path, flags, metric, recorded
):
    # Two steps of two windows are two epochs, and each reads another replica of the sample.
    assert cli.main(train_words(richer_dataset, pruned_student, tmp_path / "run", *flags.split(), "--steps", "2")) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(metric in line for line in lines if "loss" in line)
    loss = json.loads((tmp_path / "run" / "results.json").read_text())["loss"]
    assert loss == loss | recorded


def test_a_loss_that_the_shards_lack_is_refused_before_any_output(run_dataset, pruned_student, tmp_path, capsys):
    assert cli.main(train_words(run_dataset, pruned_student, tmp_path / "run", "--tail", "sample")) == 2
    assert "annotate with --head threshold-sampling" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("merge", [False, True])
def test_a_lora_run_exports_adapters_or_the_merged_student(run_dataset, pruned_student, tmp_path, merge, capsys):
    run = tmp_path / "run"
    flags = [
        "--lora-r",
        "2",
        "--lora-targets",
        "q_proj",
        "v_proj",
        "--lr",
        "0.01",
        *(["--lora-merge"] if merge else []),
    ]
    assert cli.main(train_words(run_dataset, pruned_student, run, *flags)) == 0
    assert (run / "student" / "adapter_model.safetensors").exists() is not merge
    assert (run / "student" / "model.safetensors").exists() is merge
    capsys.readouterr()
    assert cli.main(["eval", str(run), "--shards", run_dataset, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    results = json.loads((run / "results.json").read_text())
    assert measured["kl_nats"] == pytest.approx(results["held_out"]["after"]["kl_nats"], rel=1e-5)
    assert measured["kl_nats"] != results["held_out"]["before"]["kl_nats"]
    assert results["adapters"] == {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "bias": "none",
                                   "peft_type": "LORA"}  # fmt: skip
    card = json.loads((run / "student" / "logitcask.json").read_text())
    assert card["training"]["adapters"] == results["adapters"]
    plain, ours = AutoModelForCausalLM.from_pretrained(run / "student").eval(), load_student(run / "student").eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids).logits, ours(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_adapters_are_not_put_on_adapters(student_directory, tmp_path, capsys, run_dataset):
    (student_directory / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match="is itself an adapter"):
        _student(TrainSettings(datasets=("x",), student=str(student_directory), out="x", lora_r=2))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lora-alpha", "4"], "need --lora-r"),
        (["--lora-r", "-1"], "lora_r must be at least 0"),
        (["--lora-r", "2", "--lora-dropout", "1"], "lora_dropout must be"),
        (["--lora-r", "2", "--lora-4bit", "--lora-merge"], "cannot be merged exactly"),
        (["--lora-r", "2", "--fsdp"], "not supported with --fsdp"),
    ],
)
def test_options_of_adapters_that_make_no_sense_are_refused(
    run_dataset, pruned_student, tmp_path, flags, message, capsys
):
    assert cli.main(train_words(run_dataset, pruned_student, tmp_path / "run", *flags)) == 2
    assert message in capsys.readouterr().err
