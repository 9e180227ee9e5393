"""Tiny tokenizers in GGUF, and texts on which their settings show.

llama.cpp's ids of the texts are kept in `tests/fixtures/llama_cpp` (`bench/gguf_logits.py` computes them).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
from gguf_models import SETTINGS, add_value

# As GPT-2 spells bytes.
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_SPELLING = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(256 + index) for index, byte in enumerate(byte for byte in range(256) if byte not in _PRINTABLE)
}
_MERGES = [
    *("Ġ Ġ", "ĠĠ ĠĠ", "1 2", "12 3", "123 4", "3 4", "Ġ 1", "Ġ 12", "a b", "ab c", "Ġ a", "Ġ ab", "Ġ abc", "A B"),
    *("' s", "' S", "' ll", "l l", "! !", "!! !", "Ġ !", "Ġ !!", "Ċ Ċ", "ĊĊ Ċ", "! Ċ", "!! Ċ", "Ġ Ċ", "ĠĠ Ċ", "č Ċ"),
    *("AB C", "/ Ċ", "!! /", "ab s", "C a", "a B", "_ a", "- a", "( a", "Ã ©", "a Ã©", "Ġ Ã©", "Ġ 's", "ĉ ĉ", "ĉ a"),
    *("Ċ a", "Ċ Ġ"),
]  # fmt: skip
_MERGED = dict.fromkeys(merge.replace(" ", "") for merge in _MERGES)
BYTE_LEVEL = ["<|endoftext|>", "<|im_start|>", *_SPELLING.values(), *_MERGED, "abcd"]
_WORDS = (
    "▁",
    "▁▁",
    "t",
    "h",
    "e",
    "th",
    "the",
    "▁the",
    "▁t",
    "▁th",
    "a",
    "▁a",
    "c",
    "at",
    "cat",
    "▁cat",
    "s",
    "▁s",
    "▁▁▁",
)
SENTENCEPIECE = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *_WORDS]
TEXTS = (
    "the cat",
    " the  cat",
    "   the",
    "the\ncat",
    "abc ab's aB ABC abcd xabcd",
    "1234 12 123412 1",
    "  12   abc    1234",
    "ab!!\n\n\nabc  \n  ab!!/\n",
    "it's IT'S ab'll",
    "é aé  é_a -a (a",
    "\t\ta\r\na\n a",
    "日本語 １２ ٣٤",
    "<|im_start|>the",
    "a\u00a0b  ",
    "abcd",
)
_IDS = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}
_GPT2 = {"tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.bos_token_id": 1}
# By name, kind of tokenizer and settings.
TOKENIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _IDS),
    "llama, a space in front": ("llama", _IDS | {"tokenizer.ggml.add_space_prefix": True}),
    "llama, no space in front": ("llama", _IDS | {"tokenizer.ggml.add_space_prefix": False}),
    "llama, no beginning": ("llama", _IDS | {"tokenizer.ggml.add_bos_token": False}),
    "gpt2, a beginning": ("gpt2", _GPT2 | {"tokenizer.ggml.add_bos_token": True}),
    "gpt2, no beginning": ("gpt2", _GPT2 | {"tokenizer.ggml.add_bos_token": False}),
    "gpt2, nothing stated": ("gpt2", _GPT2),
    "llama 3, nothing stated": ("gpt2", _GPT2 | {"tokenizer.ggml.pre": "llama-bpe"}),
}


def write_tokenizer(path: Path, kind: str, settings: Mapping[str, Any]) -> Path:
    """Writes a file with a tokenizer and no weights."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in SETTINGS["llama"].items():
        if name != "vocab_size":
            add_value(writer, f"llama.{name}", value)
    writer.add_tokenizer_model(kind)
    if kind == "llama":
        writer.add_token_list(SENTENCEPIECE)
        writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(_WORDS))
        writer.add_token_scores([0.0] * 259 + [len(piece) - 10.0 - index / 100 for index, piece in enumerate(_WORDS)])
    else:
        writer.add_token_list(BYTE_LEVEL)
        writer.add_token_types([3, 3] + [1] * (len(BYTE_LEVEL) - 2))
        writer.add_token_merges(_MERGES)
    for key, value in settings.items():
        add_value(writer, key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
