"""The tokenizer inside a GGUF file: converted by `transformers`, corrected where the conversion splits text wrongly.

A GGUF file names the rule by which its vocabulary splits text before merging ("smollm", "qwen2"), but does not state
the rule. `transformers` silently replaces a rule that it does not know by GPT-2's, which gives other ids than the
teacher was trained on. So such rules are either supplied here or refused.
"""

from pathlib import Path
from typing import Any

from logitcask.schemas.errors import TokenizerError
from logitcask.teacher.model.gguf_header import read_gguf_header

# GPT-2's rule after every digit is split off: `LLAMA_VOCAB_PRE_TYPE_SMOLLM` and similar types in llama.cpp's
# llama-vocab.cpp. Only runs of spaces before numbers differ, but those are common in tables and code.
_SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_GPT2 = {"gpt-2", "default", "mpt", "olmo", "jais", "phi-2", "trillion", "granite-docling"}
_KNOWN_TO_TRANSFORMERS = {
    *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "dbrx"),
    *("smaug-bpe", "tekken", "qwen2", "deepseek-r1-qwen", "kormo", "megrez", "qwen35", "gpt-4o", "llama4"),
    *("kanana2", "talkie", "minimax-m2"),
}


def load_gguf_tokenizer(path: Path) -> Any:
    """A `transformers` tokenizer that gives the ids of the file's own tokenizer.

    Raises:
        TokenizerError: The file has no tokenizer, or splits text by an unknown rule.
    """
    # Not AutoTokenizer: it reads the whole model configuration first, which takes ten times as long.
    from transformers import PreTrainedTokenizerFast

    settings = read_gguf_header(path).settings
    kind, rule = settings.get("tokenizer.ggml.model"), settings.get("tokenizer.ggml.pre", "default")
    if kind is None:
        raise TokenizerError(f"{path} has no tokenizer; name the directory or file of the model's tokenizer")
    if kind == "gpt2" and rule not in _SINGLE_DIGITS | _GPT2 | _KNOWN_TO_TRANSFORMERS:
        raise TokenizerError(
            f"{path} splits text by the rule {rule!r}, which is unknown, so its ids would be wrong; name the directory "
            "of the original model's tokenizer"
        )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    if kind == "gpt2" and rule in _SINGLE_DIGITS:
        _set_single_digits(tokenizer)
    return tokenizer


def _set_single_digits(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
