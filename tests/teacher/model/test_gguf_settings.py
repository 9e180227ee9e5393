"""Settings of GGUF files: logits equal llama.cpp's own, or the setting is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_models import HEAD_WIDTH, HEADS, IDS, SETTINGS, VARIANTS, WIDTH, write_model
from repository import ROOT

from logitcask.schemas.errors import TeacherError
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.model.gguf_header import read_gguf_header
from logitcask.teacher.model.gguf_settings import gguf_configuration
from logitcask.teacher.model.loading import load_model

# llama.cpp reads GELU from a table of float16 values.
TOLERANCES = {"gemma2": 3e-3, "gemma3": 3e-3, "gpt2": 3e-3, "starcoder2": 3e-3}


@pytest.fixture(scope="module")
def by_llama_cpp() -> dict[str, np.ndarray]:
    """Logits by name, of all positions of IDS (`make llama-cpp`)."""
    return dict(np.load(ROOT / "tests" / "fixtures" / "llama_cpp" / "logits.npz"))


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected - expected.mean(-1, keepdims=True)))


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        pytest.param(*one, marks=() if one[0] == "llama" or one[1] == "as it is" else pytest.mark.slow)
        for one in VARIANTS
    ],
)
def test_logits_equal_those_of_llama_cpp(by_llama_cpp, architecture, name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = load_model(write_model(tmp_path / "m.gguf", architecture, VARIANTS[architecture, name]), "float32", "cpu")
    with torch.inference_mode():
        logits_TV = model(input_ids=torch.from_numpy(IDS)[None]).logits[0].numpy()
    tolerance = TOLERANCES.get(architecture, 1e-5)
    assert relative_error(logits_TV, by_llama_cpp[f"{architecture}: {name}"]) < tolerance


@pytest.mark.parametrize("architecture", SETTINGS)
def test_every_setting_that_is_compared_changes_the_logits(by_llama_cpp, architecture):
    plain = by_llama_cpp[f"{architecture}: as it is"]
    same = {
        name
        for one, name in VARIANTS
        if one == architecture and relative_error(by_llama_cpp[f"{one}: {name}"], plain) < 0.01
    }
    without_effect = {"a scaling that is switched off", "no base", "the name of another architecture"}
    assert same - without_effect == {"as it is"} - ({"no base"} if architecture == "gemma3" else set())


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("llama", {"attention.new_trick": 1}, r"the setting llama\.attention\.new_trick = 1"),
        ("llama", {"expert_count": 8}, r"llama\.expert_count = 8"),
        ("llama", {"attention.causal": False}, r"llama\.attention\.causal = False"),
        ("llama", {"attention.sliding_window": 8}, r"llama\.attention\.sliding_window = 8"),
        ("llama", {"final_logit_softcapping": 30.0}, r"llama\.final_logit_softcapping = 30"),
        ("llama", {"rope.dimension_count": 4}, r"llama\.rope\.dimension_count = 4"),
        ("llama", {"rope.scaling.type": "longrope"}, r"llama\.rope\.scaling\.type = 'longrope'"),
        ("llama", {"rope.scaling.attn_factor": 2.0}, r"llama\.rope\.scaling\.attn_factor = 2\.0"),
        ("llama", {"rope.scaling.yarn_beta_fast": 16.0}, r"rope\.scaling\.yarn_beta_fast = 16\.0"),
        ("llama", {"attention.value_length": 16}, "keys and values have different lengths"),
        ("llama", {"attention.head_count": [4, 2]}, r"llama\.attention\.head_count"),
        ("llama", {"attention.head_count_kv": None}, r"does not state llama\.attention\.head_count_kv"),
        ("llama", {"vocab_size": 65}, r"llama\.vocab_size = 65 for 64 rows"),
        ("llama", {"+": ("blk.0.attn_q_norm",)}, r"the tensor blk\.0\.attn_q_norm\.weight"),
        ("llama", {"+": ("rope_freqs",), "rope.scaling.type": "yarn", "rope.scaling.factor": 2.0}, "together with"),
        ("llama", {"general.type": "adapter"}, r"general\.type = 'adapter'"),
        ("llama", {"split.count": 2}, r"split\.count"),
        ("llama", {"other.setting": 1}, r"llama\.other\.setting = 1"),
        ("qwen2", {"+": ("rope_freqs",)}, r"the tensor rope_freqs\.weight"),
        ("gemma2", {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0}, r"gemma2\.rope\.scaling\.type = 'yarn'"),
        ("phi3", {"rope.scaling.type": "longrope"}, r"phi3\.rope\.scaling\.type = 'longrope'"),
        ("qwen3moe", {"expert_weights_scale": 2.5}, r"qwen3moe\.expert_weights_scale = 2\.5"),
    ],
)
def test_what_is_in_no_row_is_refused_by_name(architecture: str, changes: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(TeacherError, match=message):
        load_model(write_model(tmp_path / "model.gguf", architecture, changes), "float32", "cpu")


@pytest.mark.parametrize(("architecture", "layers"), [("gemma2", 46), ("gemma3", 62)])
def test_gemma_27b_scales_queries_by_another_width(architecture, layers, tmp_path):
    path = write_model(tmp_path / "model.gguf", architecture, {"block_count": layers, "attention.key_length": 16,
                                                               "attention.value_length": 16})  # fmt: skip
    assert gguf_configuration(read_gguf_header(path), path).query_pre_attn_scalar == WIDTH // HEADS == 8
    path = write_model(tmp_path / "model.gguf", architecture, {})
    assert gguf_configuration(read_gguf_header(path), path).query_pre_attn_scalar == HEAD_WIDTH


def test_an_unknown_architecture_is_refused_before_the_model_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(SETTINGS, "falcon", SETTINGS["llama"])
    path = write_model(tmp_path / "model.gguf", "falcon")
    with pytest.raises(TeacherError, match=r"architecture 'falcon'. Supported in GGUF .* llama, qwen2"):
        describe_teacher(path, "float32")
