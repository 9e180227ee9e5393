"""Teachers on disk: a copy of the tiny one, a random Llama with its own head, and a GGUF file.

The GGUF file is a random Llama of one layer with a byte-level tokenizer.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

WIDTH, HIDDEN, HEADS = 32, 64, 4


def gguf_pieces() -> list[str]:
    """Two control tokens, the byte alphabet, and two spaces."""
    return ["<|endoftext|>", "<|im_start|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĠĠ"]


@pytest.fixture
def teacher_copy(tiny_teacher: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_teacher, tmp_path / "teacher")


@pytest.fixture(scope="session")
def untied_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose head is a separate matrix."""
    directory = tmp_path_factory.mktemp("untied")
    config = LlamaConfig(
        vocab_size=200, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture
def write_gguf(tmp_path) -> Callable[..., Path]:
    """write_gguf(rule="smollm", tokenizer=True) -> path."""

    def write(rule: str = "smollm", tokenizer: bool = True) -> Path:
        path = tmp_path / "tiny.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        _write_settings(writer)
        if tokenizer:
            _write_tokenizer(writer, rule)
        _write_tensors(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def _write_settings(writer: gguf.GGUFWriter) -> None:
    writer.add_name("tiny")
    writer.add_license("mit")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(gguf_pieces()))


def _write_tokenizer(writer: gguf.GGUFWriter, rule: str) -> None:
    pieces = gguf_pieces()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(pieces)
    writer.add_token_types([3, 3] + [1] * (len(pieces) - 2))
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(True)


def _write_tensors(writer: gguf.GGUFWriter) -> None:
    generator = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(gguf_pieces()), WIDTH),
        "blk.0.ffn_gate": (HIDDEN, WIDTH),
        "blk.0.ffn_up": (HIDDEN, WIDTH),
        "blk.0.ffn_down": (WIDTH, HIDDEN),
        **{f"blk.0.attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")},
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", generator.standard_normal(shape, dtype=np.float32) * 0.3)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))
