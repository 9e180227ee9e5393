"""Loading and describing teachers, and what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scorers import scorer_of
from transformers import LlamaConfig, LlamaForCausalLM

from logitcask.schemas.errors import TeacherError, UsageError, VocabularyError
from logitcask.schemas.format.scheme import ThresholdScheme
from logitcask.schemas.format.targets import Part, Windows
from logitcask.teacher.model.description import check_vocabulary, describe_teacher
from logitcask.teacher.model.loading import export_model, load_model, resolve_device, resolve_dtype
from logitcask.teacher.model.references import resolve
from logitcask.teacher.text.tokenizers import load_tokenizer


@pytest.fixture
def teacher_copy(tiny_teacher, tmp_path) -> Path:
    return shutil.copytree(tiny_teacher, tmp_path / "teacher")


@pytest.fixture(scope="module")
def untied_teacher(tmp_path_factory) -> Path:
    """A random Llama whose head is a matrix of its own."""
    directory = tmp_path_factory.mktemp("untied")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=200, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def edit_config(directory: Path, **changes) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_teacher_is_described_without_being_built(tiny_teacher):
    info = describe_teacher(tiny_teacher, "bfloat16")
    model = load_model(tiny_teacher, device="cpu")
    assert info.architecture == type(model).__name__ == "Gemma2ForCausalLM"
    assert info.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (info.vocab_size, info.final_logit_softcap, info.dtype) == (1000, 30.0, "bfloat16")
    assert info.name == tiny_teacher.name


def test_the_fingerprint_does_not_depend_on_where_the_files_lie_or_who_wrote_them(tiny_teacher, teacher_copy):
    edit_config(teacher_copy, transformers_version="4.0.0")
    first, second = describe_teacher(tiny_teacher, "float32"), describe_teacher(teacher_copy, "float32")
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("change", ["weights", "configuration"])
def test_the_fingerprint_changes_with_weights_and_configuration(tiny_teacher, teacher_copy, change):
    if change == "weights":
        weights = load_file(teacher_copy / "model.safetensors")
        weights["model.norm.weight"][3] += 1e-3
        save_file(weights, teacher_copy / "model.safetensors", metadata={"format": "pt"})
    else:
        edit_config(teacher_copy, final_logit_softcapping=29.0)
    changed = describe_teacher(teacher_copy, "float32").fingerprint
    assert changed != describe_teacher(tiny_teacher, "float32").fingerprint


def test_the_licence_is_read_from_the_model_card(teacher_copy):
    assert describe_teacher(teacher_copy, "float32").licence is None
    (teacher_copy / "README.md").write_text("---\ntags: []\nlicense: apache-2.0\n---\n# license: none\n")
    assert describe_teacher(teacher_copy, "float32").licence == "apache-2.0"


def test_a_loaded_teacher_is_frozen_and_of_the_asked_dtype(tiny_teacher, capfd):
    model = load_model(tiny_teacher, "bfloat16", "cpu")
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert capfd.readouterr().err == "", "progress bars where nobody asked for them"


@pytest.mark.parametrize("device_map", ["auto", '{"": "cpu"}', '{"model": "cpu", "lm_head": "disk"}'])
def test_a_device_map_changes_no_logits(untied_teacher, device_map):
    plain, mapped = load_model(untied_teacher, device="cpu"), load_model(untied_teacher, device_map=device_map)
    ids = torch.arange(12)[None]
    assert torch.equal(plain(input_ids=ids).logits, mapped(input_ids=ids).logits.to("cpu"))


def test_a_device_map_puts_weights_where_it_says(untied_teacher):
    mapped = load_model(untied_teacher, device="cpu", device_map='{"model": "cpu", "lm_head": "disk"}')
    assert mapped.hf_device_map == {"model": "cpu", "lm_head": "disk"}
    assert mapped.lm_head.weight.is_meta


def test_a_teacher_with_a_device_map_has_the_same_targets_and_says_how_it_was_spread(untied_teacher, caplog):
    places = {"model": "cpu", "lm_head": "disk"}
    mapped = load_model(untied_teacher, device="cpu", device_map=json.dumps(places))
    scorers = [scorer_of(model, ThresholdScheme(k=4)) for model in (load_model(untied_teacher, device="cpu"), mapped)]
    assert "its own logits are used" in caplog.text
    assert [scorer.environment.get("device_map") for scorer in scorers] == [None, places]
    tokens = np.arange(20, dtype=np.int32)
    windows = Windows(
        token=tokens,
        kind=np.zeros(20, np.uint8),
        part=np.zeros(20, np.int32),
        window_offsets=np.array([0, 20]),
        parts=(Part(id="0", source="", offset=0),),
    )
    plain, spread = (scorer.score(windows) for scorer in scorers)
    assert plain.head_ids.tolist() == spread.head_ids.tolist()
    np.testing.assert_allclose(plain.head_log_probs, spread.head_log_probs, atol=1e-5)


@pytest.mark.parametrize("device_map", ["best", "{", "[]", "{}", "1"])
def test_what_is_no_device_map_is_bad_usage(tiny_teacher, device_map):
    with pytest.raises(UsageError, match="JSON object of module to device"):
        load_model(tiny_teacher, device_map=device_map)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_loading_does_not_hold_two_copies(tmp_path):
    """Resident memory of a fresh process: peak while loading, and once every weight has been read."""
    config = LlamaConfig(
        vocab_size=16_000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=2, num_attention_heads=8
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.to_empty(device="cpu")
    for weight in model.parameters():
        weight.data.fill_(0.01)
    model.save_pretrained(tmp_path)
    size_bytes = sum(weight.nbytes for weight in model.parameters())
    assert size_bytes > 200e6
    code = (
        "import pathlib, re, sys\n"
        "from logitcask.teacher.model.loading import load_model\n"
        "from transformers import LlamaForCausalLM\n"
        "status = pathlib.Path('/proc/self/status')\n"
        "def peak(): return 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', status.read_text())[1])\n"
        "before = peak()\n"
        "model = load_model(sys.argv[1], 'float32', 'cpu')\n"
        "assert sum(float(weight.sum()) for weight in model.parameters())\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert 0.8 * size_bytes < int(done.stdout) < 1.4 * size_bytes


def test_an_exported_model_has_the_same_logits(tiny_teacher, tmp_path):
    model = load_model(tiny_teacher, device="cpu")
    export_model(model, tmp_path)
    ids = torch.arange(12)[None]
    assert torch.equal(load_model(tmp_path, device="cpu")(input_ids=ids).logits, model(input_ids=ids).logits)


def test_auto_means_bfloat16_on_cuda_and_float32_on_the_cpu():
    assert resolve_dtype("auto", "cuda:0") == "bfloat16"
    assert resolve_dtype("auto", "cpu") == "float32"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


def test_an_unknown_dtype_is_bad_usage():
    with pytest.raises(UsageError, match="int3"):
        resolve_dtype("int3", "cpu")


def test_cuda_without_a_device_is_bad_usage(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="--device cpu"):
        resolve_device("cuda")


@pytest.mark.parametrize("reference", ["/no/such/directory", "./missing", "model.gguf", "a b", ""])
def test_what_is_neither_here_nor_a_hub_id_is_refused_without_asking_the_hub(reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if reference == "":
        reference = str(tmp_path / "gone")
    with pytest.raises(TeacherError, match=r"does not exist.*give a directory"):
        resolve(reference)


def test_a_hub_id_that_cannot_be_fetched_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TeacherError, match=r"'nobody/nothing'.*local directory"):
        resolve("nobody/nothing")


def test_a_file_that_is_no_gguf_is_refused(teacher_copy):
    with pytest.raises(TeacherError, match=r"not a \.gguf"):
        resolve(teacher_copy / "model.safetensors")


@pytest.mark.parametrize(
    ("missing", "message"), [("config.json", "no config.json"), ("model.safetensors", "safetensors only")]
)
def test_a_directory_without_its_files_is_refused(teacher_copy, missing, message):
    (teacher_copy / missing).unlink()
    for use in (lambda: describe_teacher(teacher_copy, "float32"), lambda: load_model(teacher_copy, device="cpu")):
        with pytest.raises(TeacherError, match=message):
            use()


def test_a_configuration_that_is_no_json_is_refused(teacher_copy):
    (teacher_copy / "config.json").write_text("{")
    with pytest.raises(TeacherError, match="not JSON"):
        describe_teacher(teacher_copy, "float32")


def test_an_unknown_architecture_is_refused(teacher_copy):
    edit_config(teacher_copy, model_type="nobody-knows-it")
    with pytest.raises(TeacherError, match="cannot read the configuration"):
        describe_teacher(teacher_copy, "float32")


def test_cut_off_weights_are_refused(teacher_copy):
    path = teacher_copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    for use in (lambda: describe_teacher(teacher_copy, "float32"), lambda: load_model(teacher_copy, device="cpu")):
        with pytest.raises(TeacherError):
            use()


def test_missing_weights_are_never_made_up(teacher_copy):
    weights = load_file(teacher_copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, teacher_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TeacherError, match=r"layers\.1\.mlp\.up_proj"):
        load_model(teacher_copy, device="cpu")


def test_a_missing_weight_file_of_an_index_is_named(teacher_copy):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (teacher_copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(TeacherError, match="lacks model-00001-of-00002"):
        describe_teacher(teacher_copy, "float32")


def test_a_tokenizer_with_more_ids_than_the_model_has_rows_is_refused(tiny_teacher, teacher_copy):
    tokenizer = load_tokenizer(tiny_teacher).info
    check_vocabulary(tokenizer, describe_teacher(tiny_teacher, "float32"))
    edit_config(teacher_copy, vocab_size=900)
    with pytest.raises(VocabularyError, match=r"ids up to 999.*has only 900"):
        check_vocabulary(tokenizer, describe_teacher(teacher_copy, "float32"))
