"""Loading teachers, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from logitcask.schemas.errors import TeacherError, UsageError
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.model.loading import export_model, load_model, resolve_device, resolve_dtype


def test_a_loaded_teacher_is_frozen_and_has_the_given_dtype(tiny_teacher, capfd):
    model = load_model(tiny_teacher, "bfloat16", "cpu")
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert capfd.readouterr().err == "", "no progress bars by default"


@pytest.mark.parametrize("device_map", ["auto", '{"": "cpu"}', '{"model": "cpu", "lm_head": "disk"}'])
def test_a_device_map_changes_no_logits(untied_teacher, device_map):
    plain, mapped = load_model(untied_teacher, device="cpu"), load_model(untied_teacher, device_map=device_map)
    ids = torch.arange(12)[None]
    assert torch.equal(plain(input_ids=ids).logits, mapped(input_ids=ids).logits.to("cpu"))


def test_a_device_map_decides_where_weights_are(untied_teacher):
    mapped = load_model(untied_teacher, device="cpu", device_map='{"model": "cpu", "lm_head": "disk"}')
    assert mapped.hf_device_map == {"model": "cpu", "lm_head": "disk"}
    assert mapped.lm_head.weight.is_meta


@pytest.mark.parametrize("device_map", ["best", "{", "[]", "{}", "1"])
def test_an_invalid_device_map_is_bad_usage(tiny_teacher, device_map):
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


def test_auto_is_bfloat16_on_cuda_and_float32_on_the_cpu():
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


@pytest.mark.parametrize(
    ("missing", "message"), [("config.json", "no config.json"), ("model.safetensors", "safetensors only")]
)
def test_a_directory_without_its_files_is_refused(teacher_copy, missing, message):
    (teacher_copy / missing).unlink()
    for use in (lambda: describe_teacher(teacher_copy, "float32"), lambda: load_model(teacher_copy, device="cpu")):
        with pytest.raises(TeacherError, match=message):
            use()


def test_cut_off_weights_are_refused(teacher_copy):
    path = teacher_copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    for use in (lambda: describe_teacher(teacher_copy, "float32"), lambda: load_model(teacher_copy, device="cpu")):
        with pytest.raises(TeacherError):
            use()


def test_missing_weights_are_never_filled_with_random_numbers(teacher_copy):
    weights = load_file(teacher_copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, teacher_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TeacherError, match=r"layers\.1\.mlp\.up_proj"):
        load_model(teacher_copy, device="cpu")


def test_a_gguf_model_loads_dense_and_exports_with_identical_logits(write_gguf, tmp_path, capfd):
    model = load_model(write_gguf(), device="cpu")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    export_model(model, tmp_path / "exported")
    assert capfd.readouterr().err == "", "no progress bars by default"
    again = load_model(tmp_path / "exported", device="cpu")
    ids = torch.arange(20)[None]
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
    assert not hasattr(again.config, "quantization_config")
