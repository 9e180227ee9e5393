"""LoRA students: loss and gradients are those of the merged model; adapters are saved, loaded and merged exactly."""

import dataclasses
import shutil
from pathlib import Path

import peft
import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from logitcask.schemas.errors import StudentError, UsageError
from logitcask.student.data.collator import collate
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.model import adapters
from logitcask.student.model.load import load_student
from logitcask.student.model.trial import try_student
from logitcask.student.settings import TrainSettings
from logitcask.student.training.batch_loss import soft_target_loss

SETTINGS = TrainSettings(datasets=("x",), student="x", out="x", lora_r=3, lora_alpha=5)


def adapted(model: PreTrainedModel, **changes) -> PreTrainedModel:
    """The model with adapters that change it: peft starts with one matrix at zero."""
    student = adapters.add_adapters(model, dataclasses.replace(SETTINGS, **changes))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for name, weight in student.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.3)
    return student


def test_loss_and_gradients_equal_those_of_the_merged_model(tiny_student, dataset_url):
    dataset = SoftTargetDataset(dataset_url)
    batch = collate([dataset[index] for index in range(4)])
    student = adapted(tiny_student()).double()
    whole = adapted(tiny_student()).double().merge_and_unload().requires_grad_(True)
    losses = []
    for model in (student, whole):
        parts = soft_target_loss(model, batch, vocab_size=48, kl_weight=0.7, cross_entropy_weight=0.3)
        parts.loss.backward()
        losses.append(parts.loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    num_compared = 0
    for name, module in student.get_base_model().named_modules():
        if not hasattr(module, "lora_A"):
            continue
        # W' = W + s B A, so the gradients are s G Aᵀ and s Bᵀ G, with G that of W'.
        a, b, scale = module.lora_A["default"].weight, module.lora_B["default"].weight, module.scaling["default"]
        gradient = whole.get_submodule(name).weight.grad
        torch.testing.assert_close(b.grad, scale * gradient @ a.T, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(a.grad, scale * b.T @ gradient, rtol=1e-6, atol=1e-9)
        assert module.base_layer.weight.grad is None
        num_compared += 1
    assert num_compared == 2 * 7  # the linear layers of two decoder layers, not the output projection


def test_alpha_is_twice_the_rank_and_targets_are_chosen(tiny_student):
    student = adapters.add_adapters(
        tiny_student(), dataclasses.replace(SETTINGS, lora_alpha=None, lora_targets=("q_proj",), lora_dropout=0.2)
    )
    config = student.active_peft_config
    assert (config.r, config.lora_alpha, config.lora_dropout, config.target_modules) == (3, 6, 0.2, {"q_proj"})


def test_targets_that_do_not_exist_are_refused(tiny_student):
    with pytest.raises(UsageError, match=r"--lora-targets nothing: .*not found"):
        adapters.add_adapters(tiny_student(), dataclasses.replace(SETTINGS, lora_targets=("nothing",)))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_an_adapter_of_the_output_projection_is_refused(tiny_student):
    with pytest.raises(UsageError, match="an adapter of the output projection is not supported"):
        try_student(adapted(tiny_student(), lora_targets=("lm_head",)))


def test_an_output_projection_that_is_trained_whole_is_read(tiny_student):
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    model = tiny_student()
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    student = peft.get_peft_model(model, config)
    with torch.no_grad():
        student.get_base_model().lm_head.modules_to_save["default"].weight.mul_(2)
    try_student(student)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "virtual tokens"),
        (peft.LoraConfig(r=2, target_modules=["embed_tokens"], task_type="CAUSAL_LM"), "change only one of them"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_adapters_that_the_loss_cannot_read_are_refused(tiny_student, config, message):
    with pytest.raises(UsageError, match=message):
        adapters.check_adapters(peft.get_peft_model(tiny_student(), config))


def test_peft_must_be_installed(monkeypatch):
    monkeypatch.setattr("logitcask.student.model.adapters.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'logitcask\[lora\]'"):
        adapters.require_peft()


@pytest.fixture
def saved(tiny_student, student_directory, tmp_path) -> Path:
    """The directory of adapters of the tiny student."""
    adapters.save_adapters(adapted(load_student(student_directory)), student_directory, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_saved_adapters_are_merged_here_and_applied_in_transformers(saved, tiny_student):
    expected = adapted(tiny_student()).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        logits = expected(input_ids=ids).logits
        for loaded in (load_student(saved), AutoModelForCausalLM.from_pretrained(saved)):
            torch.testing.assert_close(loaded.eval()(input_ids=ids).logits, logits, rtol=1e-4, atol=1e-4)
    assert type(load_student(saved)) is type(tiny_student())


def test_an_adapter_with_whole_weights_is_refused(saved, student_directory):
    shutil.copy(student_directory / "model.safetensors", saved)
    with pytest.raises(StudentError, match="holds whole weights and an adapter"):
        load_student(saved)


def test_an_adapter_whose_base_is_gone_is_refused(saved, student_directory):
    student_directory.rename(student_directory.parent / "elsewhere")
    with pytest.raises(StudentError, match=r"student' on which the adapter was trained is not there"):
        load_student(saved)


@pytest.mark.parametrize("how", ["missing", "cut short", "lacks a weight", "no configuration"])
def test_damaged_adapters_are_refused(saved, how):
    path = saved / adapters.WEIGHTS_NAME
    if how == "missing":
        path.unlink()
    elif how == "cut short":
        path.write_bytes(path.read_bytes()[:200])
    elif how == "lacks a weight":
        weights = safetensors.torch.load_file(path)
        weights.pop(next(iter(weights)))
        safetensors.torch.save_file(weights, path)
    else:
        (saved / adapters.CONFIG_NAME).write_text("{")
    with pytest.raises(StudentError, match="adapter"):
        load_student(saved)


def test_four_bits_need_cuda_and_bitsandbytes(student_directory, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"--lora-4bit needs a CUDA device .* bitsandbytes"):
        load_student(student_directory, four_bit=True)
