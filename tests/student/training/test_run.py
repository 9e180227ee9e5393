"""A whole run, from the command line and as a library: evaluation, export, resumption, refusals."""

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
from transformers import AutoModelForCausalLM

from logitcask.schemas import cli
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.student.init import make_student
from logitcask.student.settings import TrainSettings
from logitcask.student.training.run import train
from logitcask.student.training.trainer import SoftTargetTrainer
from logitcask.teacher.text.tokenizers import load_tokenizer


@pytest.fixture(scope="module")
def student(tiny_teacher, tmp_path_factory) -> Path:
    """Two of the tiny teacher's four layers, with its tokenizer."""
    directory = tmp_path_factory.mktemp("init") / "student"
    make_student.prune_teacher(str(tiny_teacher), directory, keep_layers=[0, 3])
    return directory


@pytest.fixture(scope="module")
def dataset(tiny_teacher, write_dataset, tmp_path_factory) -> str:
    """Random targets over the tiny teacher's vocabulary."""
    return write_dataset(
        tmp_path_factory.mktemp("run-dataset"),
        {"train": [6], "held-out": [2]},
        tokenizer=load_tokenizer(tiny_teacher).info,
        vocab_size=1000,
    )


def arguments(dataset: str, student: Path, run: Path, *more: str) -> list[str]:
    return ["train", dataset, "--student", str(student), "--out", str(run), "--batch-windows", "2",
            "--steps", "3", "--device", "cpu", *more]  # fmt: skip


@pytest.fixture(scope="module")
def finished(dataset, student, tmp_path_factory) -> Path:
    """A run of three steps."""
    run = tmp_path_factory.mktemp("run") / "run"
    assert cli.main(arguments(dataset, student, run, "--save-every", "2")) == 0
    return run


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(directory).state_dict()


def test_results_hold_the_held_out_figures_before_and_after(finished):
    results = json.loads((finished / "results.json").read_text())
    before, after = results["held_out"]["before"], results["held_out"]["after"]
    assert before["num_windows"] == after["num_windows"] == 2
    assert after["kl_nats"] < before["kl_nats"]
    assert results["steps"] == 3


def test_metrics_have_a_line_for_each_step(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert all(line["tokens_per_second"] > 0 and line["grad_norm"] > 0 for line in steps)


def test_the_trained_student_loads_in_plain_transformers_and_generates_text(finished):
    model = AutoModelForCausalLM.from_pretrained(finished / "student")
    tokenizer = load_tokenizer(finished / "student")
    prompt = [tokenizer.info.bos_id, *tokenizer.encode("The student")]
    generated = model.generate(torch.tensor([prompt]), max_new_tokens=5, do_sample=False)
    assert model.config.use_cache
    assert tokenizer.decode(generated[0].tolist()[1:]).startswith("The student")


def test_the_trained_student_names_its_teacher_its_data_and_their_licences(finished, dataset):
    identity = json.loads((finished / "student" / "logitcask.json").read_text())
    assert identity["licences"] == {"initial_weights": None, "teacher": "apache-2.0", "corpus": "PSF-2.0"}
    assert identity["training"]["teachers"][0]["name"] == "random"
    assert identity["training"]["shards_digests"] == [load_snapshot(dataset).shards_digest]
    assert identity["initialisation"]["kept_layers"] == [0, 3]


def test_the_resolved_settings_are_written_with_the_run(finished):
    settings = json.loads((finished / "train.json").read_text())
    assert settings["snapshot"] == [1]
    assert settings["lr"] == 5e-4


def test_the_command_prints_before_and_after(dataset, student, tmp_path, capsys):
    cli.main(arguments(dataset, student, tmp_path / "run", "--eval-windows", "1"))
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["held-out", "before", "after"]
    assert out[1].startswith("KL to the teacher (nats)")
    assert out[-1] == f"student: {tmp_path / 'run' / 'student'}"


def test_a_killed_run_resumes_to_the_same_weights(finished, dataset, student, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "student")
    shutil.rmtree(run / "checkpoint-3")
    assert cli.main(arguments(dataset, student, run, "--save-every", "2", "--resume")) == 0
    whole = weights_of(finished / "student")
    for name, tensor in weights_of(run / "student").items():
        assert torch.equal(tensor, whole[name]), name


def test_resuming_at_another_learning_rate_is_refused_and_not_written_down(
    finished, dataset, student, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    words = arguments(dataset, student, run, "--save-every", "2", "--resume", "--lr", "0.1")
    assert cli.main(words) == 1
    assert "learning_rate (was 0.0005, now 0.1)" in capsys.readouterr().err
    assert json.loads((run / "train.json").read_text())["lr"] == 5e-4


def test_a_constant_learning_rate_rises_over_its_warm_up(dataset, student, tmp_path):
    more = ("--schedule", "constant", "--warmup-steps", "2", "--eval-windows", "1")
    assert cli.main(arguments(dataset, student, tmp_path / "run", *more)) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["learning_rate"] for line in lines if "loss" in line] == pytest.approx([0, 2.5e-4, 5e-4])


class Watched(SoftTargetTrainer):
    """Notes the dtype of each training pass through the first feed-forward layer, and keeps the latest trainer."""

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


def test_a_run_recomputes_reads_ahead_shuffles_by_blocks_and_keeps_copies(dataset, student, tmp_path, watched):
    fsspec.filesystem("memory").put(dataset, "/flags", recursive=True)
    more = (
        "--gradient-checkpointing",
        "--workers",
        "1",
        "--shuffle-windows",
        "8",
        "--copies",
        str(tmp_path / "copies"),
    )
    assert cli.main(arguments("memory://flags", student, tmp_path / "run", "--eval-windows", "1", *more)) == 0
    fsspec.filesystem("memory").rm("/flags", recursive=True)
    trainer = watched.latest
    assert len(trainer.passes) == 2 * 3 * 2  # forward and again backward, three steps of two micro-batches
    assert trainer.get_train_dataloader().num_workers == 1
    assert trainer.global_batches.order.buffer_windows == 8
    copied = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "copies").iterdir()}
    assert copied == {entry.digest.removeprefix("sha256:") for entry in load_snapshot(dataset).shards()}


def test_a_run_in_bfloat16_exports_float32(dataset, student, tmp_path, watched):
    flags = ("--dtype", "bfloat16", "--eval-windows", "1")
    assert cli.main(arguments(dataset, student, tmp_path / "run", *flags)) == 0
    assert watched.latest.passes == [torch.bfloat16] * 3 * 2
    exported = safetensors.torch.load_file(tmp_path / "run" / "student" / "model.safetensors")
    assert {tensor.dtype for tensor in exported.values()} == {torch.float32}


def test_a_run_is_not_begun_twice_in_one_directory(finished, dataset, student, capsys):
    assert cli.main(arguments(dataset, student, finished)) == 1
    assert "already holds a training run; use --resume" in capsys.readouterr().err


def test_a_directory_that_holds_something_else_is_refused(dataset, student, tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("mine")
    assert cli.main(arguments(dataset, student, tmp_path)) == 1
    assert "not a training run" in capsys.readouterr().err


def test_a_directory_that_is_no_student_is_a_usage_error(dataset, tmp_path, capsys):
    assert cli.main(arguments(dataset, tmp_path / "nothing", tmp_path / "run")) == 2
    assert "logitcask student init" in capsys.readouterr().err


def test_a_student_with_another_vocabulary_is_refused(dataset_url, student, tmp_path, capsys):
    assert cli.main(arguments(dataset_url, student, tmp_path / "run")) == 1
    err = capsys.readouterr().err
    assert load_tokenizer(student).info.vocabulary_fingerprint in err
    assert "a" * 32 in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--batch-windows", "3", "--micro-batch-windows", "2"],
        ["--lr", "0"],
        ["--steps", "0"],
        ["--fsdp"],
        ["--schedule", "wsd"],
        ["--weights", "1", "2"],
        ["--alpha-schedule", "wsd"],
    ],
)
def test_settings_that_cannot_be_meant_are_usage_errors(dataset, student, tmp_path, flags):
    assert cli.main([*arguments(dataset, student, tmp_path / "run"), *flags]) == 2
    assert not (tmp_path / "run").exists()


def test_eval_measures_what_the_run_measured(finished, dataset, capsys):
    assert cli.main(["eval", str(finished), "--shards", dataset, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    after = json.loads((finished / "results.json").read_text())["held_out"]["after"]
    assert measured.pop("full_kl_nats") is after.pop("full_kl_nats") is None
    assert measured == pytest.approx(after, rel=1e-5)


def test_eval_prints_a_table_of_the_split_it_is_asked_for(finished, dataset, capsys):
    assert cli.main(["eval", str(finished / "student"), "--shards", dataset, "--split", "train", "--windows", "1"]) == 0
    out = capsys.readouterr().out
    assert "calibration error (15 bins)" in out
    assert "full KL" not in out
    assert out.splitlines()[-1].endswith("in 1 windows")


def test_eval_refuses_shards_of_another_vocabulary(finished, dataset_url, capsys):
    assert cli.main(["eval", str(finished), "--shards", dataset_url]) == 1
    assert "a" * 32 in capsys.readouterr().err


def test_eval_refuses_a_directory_without_a_student(dataset, tmp_path, capsys):
    assert cli.main(["eval", str(tmp_path), "--shards", dataset]) == 2
    assert "not a student's description" in capsys.readouterr().err


def test_tensorboard_gets_the_metrics_too(dataset, student, tmp_path):
    assert cli.main(arguments(dataset, student, tmp_path / "run", "--tensorboard", "--eval-windows", "1")) == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    written = [event.value for event in events.Scalars("train/loss")]
    assert written == pytest.approx([line["loss"] for line in lines if "loss" in line])


def test_a_run_takes_several_datasets_by_weight(
    dataset, richer_dataset, student, tmp_path, write_dataset, tiny_teacher
):
    other = write_dataset(
        tmp_path / "other", {"train": [3]}, seed=4, tokenizer=load_tokenizer(tiny_teacher).info, vocab_size=1000
    )
    words = arguments(
        dataset, student, tmp_path / "run", "--weights", "3", "1", "--schedule", "wsd", "--decay-steps", "1"
    )
    assert cli.main([words[0], other, *words[1:]]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["weights"] == [3.0, 1.0]
    assert results["num_windows"] == [3, 6]
    assert results["held_out"]["after"]["num_windows"] == 2  # only one of the two has any


def test_a_dataset_without_held_out_windows_trains_without_evaluation(
    write_dataset, tiny_teacher, student, tmp_path, capsys
):
    url = write_dataset(tmp_path / "data", {"train": [2]}, tokenizer=load_tokenizer(tiny_teacher).info, vocab_size=1000)
    settings = TrainSettings(
        datasets=(url,), student=str(student), out=str(tmp_path / "run"), batch_windows=1, device="cpu"
    )
    result = train(settings)
    assert result.before is None
    assert result.steps == 2  # one epoch
    assert "no held-out windows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--teacher"),
        (["--teacher", "T"], "--keep-layers"),
        (["--teacher", "T", "--keep-layers", "0,x"], "0,x"),
        (["--teacher", "T", "--keep-layers", "0", "--layers", "1"], "--keep-layers"),
        (["--from", "C", "--layers", "2"], "--from"),
        (["--teacher", "T", "--layers", "2", "--model-config", "c.json"], "--scratch"),
    ],
)
def test_student_init_refuses_options_that_do_not_go_together(tmp_path, capsys, flags, message):
    assert cli.main(["student", "init", "--out", str(tmp_path / "student"), *flags]) == 2
    assert message in capsys.readouterr().err


def test_student_init_prunes_and_says_what_it_made(tiny_teacher, tmp_path, capsys):
    out = tmp_path / "student"
    status = cli.main(["student", "init", "--teacher", str(tiny_teacher), "--keep-layers", "0,1,3", "--out", str(out)])
    assert status == 0
    assert f"student: {out} (Gemma2ForCausalLM, 3 layers" in capsys.readouterr().out


def test_student_init_makes_a_random_student(tiny_teacher, tmp_path, capsys):
    flags = ["--scratch", "--layers", "2", "--width", "32", "--heads", "2", "--head-width", "16", "--mlp-width", "48"]
    assert cli.main(["student", "init", "--teacher", str(tiny_teacher), "--out", str(tmp_path / "s"), *flags]) == 0
    assert "Gemma2ForCausalLM, 2 layers" in capsys.readouterr().out


def test_the_commands_import_nothing_heavy():
    import subprocess
    import sys

    code = "import sys, student.commands; print([m for m in ('torch', 'transformers', 'pyarrow') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_library_example_trains_a_student(dataset, student, tmp_path, monkeypatch, capsys):
    example = ROOT / "examples" / "train_student.py"
    monkeypatch.setattr("sys.argv", [str(example), dataset, str(student), str(tmp_path)])
    runpy.run_path(str(example))
    before, after = (float(line.split()[1]) for line in capsys.readouterr().out.splitlines() if ":" in line)
    assert after < before
    AutoModelForCausalLM.from_pretrained(tmp_path / "student")


@pytest.fixture(scope="module")
def richer_dataset(tiny_teacher, write_dataset, tmp_path_factory) -> str:
    """With sampled tails and tails at temperature 2."""
    return write_dataset(
        tmp_path_factory.mktemp("richer-dataset"),
        {"train": [2], "held-out": [1]},
        tokenizer=load_tokenizer(tiny_teacher).info,
        vocab_size=1000,
        extras=True,
    )


@pytest.mark.parametrize(
    ("flags", "metric", "recorded"),
    [
        ("--tail blend --sample-share 0.3 --alpha 0.5", "teacher_cross_entropy_nats", {"sample_share": 0.3}),
        ("--tail label --divergence reverse", "reverse_kl_nats", {"tail": "label", "divergence": "reverse"}),
        ("--temperature 2 --alpha 0.5", "kl_nats", {"temperature": 2.0, "tempering": "exact"}),
        ("--temperature 2 --tempering head", "kl_nats", {"tempering": "head"}),
    ],
)
def test_a_run_minimises_the_loss_it_is_asked_for_and_records_it(
    richer_dataset, student, tmp_path, flags, metric, recorded
):
    # Two steps of two windows are two epochs: each reads another replica of the sample.
    assert cli.main(arguments(richer_dataset, student, tmp_path / "run", *flags.split(), "--steps", "2")) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(metric in line for line in lines if "loss" in line)
    loss = json.loads((tmp_path / "run" / "results.json").read_text())["loss"]
    assert loss == loss | recorded


def test_a_loss_that_the_shards_cannot_give_is_refused_before_anything_is_written(dataset, student, tmp_path, capsys):
    assert cli.main(arguments(dataset, student, tmp_path / "run", "--tail", "sample")) == 2
    assert "annotate with --head threshold-sampling" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
