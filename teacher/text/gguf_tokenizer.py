"""The tokenizer inside a GGUF file: converted by `transformers`, corrected where the conversion gives other ids.

A GGUF file names the rule by which its vocabulary splits text before merging ("smollm", "qwen2"), but does not state
the rule. `transformers` silently replaces a rule that it does not know by GPT-2's, and drops other settings. So every
setting is in the table below: honored, known to change no ids, or refused by name. The ids were compared with those of
llama.cpp (`tests/teacher/text/test_gguf_tokenizer.py`).
"""

from pathlib import Path
from typing import Any

from logitcask.schemas.errors import TokenizerError
from logitcask.teacher.model.gguf_header import GgufHeader, read_gguf_header

# GPT-2's rule after every digit is split off: `LLAMA_VOCAB_PRE_TYPE_SMOLLM` and similar types in llama.cpp's
# llama-vocab.cpp. Only runs of spaces before numbers differ, but those are common in tables and code.
_SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_GPT2 = {"gpt-2", "mpt", "olmo", "jais", "phi-2", "trillion", "granite-docling"}
# Words that are in the vocabulary are not merged from parts; and texts begin with BOS.
_WHOLE_WORDS = {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken"}
_KNOWN_TO_TRANSFORMERS = {
    *("dbrx", "smaug-bpe", "qwen2", "deepseek-r1-qwen", "kormo", "megrez", "qwen35", "gpt-4o", "llama4"),
    *("kanana2", "talkie", "minimax-m2"),
}
RULES = _SINGLE_DIGITS | _GPT2 | _WHOLE_WORDS | _KNOWN_TO_TRANSFORMERS

_HONORED = {
    *("model", "pre", "tokens", "scores", "token_type", "merges", "add_bos_token", "add_space_prefix"),
    *("bos_token_id", "eos_token_id", "unknown_token_id", "padding_token_id"),
}
# Packing decides about the end of a text; the others are for generation, infilling and encoders.
_WITHOUT_EFFECT = {
    *("add_eos_token", "add_sep_token", "token_type_count", "seperator_token_id", "separator_token_id", "cls_token_id"),
    *("mask_token_id", "eot_token_id", "eom_token_id", "prefix_token_id", "suffix_token_id", "middle_token_id"),
    *("fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id", "fim_pad_token_id", "fim_rep_token_id"),
    *("fim_sep_token_id", "eog_token_ids"),
}
_NEUTRAL = {"remove_extra_whitespaces": False}
# In the settings that a tokenizer is saved with.
_ADDS_BOS = "gguf_add_bos_token"


def load_gguf_tokenizer(path: Path) -> Any:
    """A `transformers` tokenizer that gives the ids of the file's own tokenizer.

    Raises:
        TokenizerError: The file has no tokenizer, splits text by an unknown rule, or has a setting that is not known.
    """
    # Not AutoTokenizer: it reads the whole model configuration first, which takes ten times as long.
    from transformers import PreTrainedTokenizerFast

    header = read_gguf_header(path)
    settings = header.settings
    kind, rule = settings.get("tokenizer.ggml.model"), settings.get("tokenizer.ggml.pre", "default")
    if kind in (None, "none"):
        raise TokenizerError(f"{path} has no tokenizer; name the directory or file of the model's tokenizer")
    if kind not in ("gpt2", "llama"):
        raise _refusal(path, f"tokenizer.ggml.model = {kind!r}")
    if kind == "gpt2" and rule not in RULES:
        raise TokenizerError(
            f"{path} splits text by the rule {rule!r}, which is unknown, so its ids would be wrong; name the directory "
            "of the original model's tokenizer"
        )
    _check_settings(header, path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    if kind == "gpt2" and rule in _SINGLE_DIGITS:
        _set_single_digits(tokenizer)
    if kind == "gpt2" and rule in _WHOLE_WORDS:
        tokenizer.backend_tokenizer.model.ignore_merges = True
    if kind == "llama":
        # Gemma's pieces never begin with a space that the text lacks.
        is_default = not header.architecture.startswith("gemma")
        _set_space_prefix(tokenizer, settings.get("tokenizer.ggml.add_space_prefix", is_default))
    begins = kind == "llama" or rule in _WHOLE_WORDS
    tokenizer.init_kwargs[_ADDS_BOS] = settings.get("tokenizer.ggml.add_bos_token", begins)
    return tokenizer


def begins_with_bos(tokenizer: Any) -> bool:
    """Whether texts begin with BOS, for a tokenizer of `transformers`; not if a GGUF file said so, also once saved."""
    return tokenizer.init_kwargs.get(_ADDS_BOS, True)


def _check_settings(header: GgufHeader, path: Path) -> None:
    for key in (*header.settings, *header.array_lengths):
        if not key.startswith("tokenizer.") or key.startswith(("tokenizer.chat_template", "tokenizer.huggingface.")):
            continue
        name = key.removeprefix("tokenizer.ggml.")
        value = header.settings.get(key)
        if name not in _HONORED | _WITHOUT_EFFECT and not (name in _NEUTRAL and value == _NEUTRAL[name]):
            raise _refusal(path, key if value is None else f"{key} = {value!r}")


def _refusal(path: Path, what: str) -> TokenizerError:
    return TokenizerError(
        f"{path} has the setting {what}, which logitcask does not support, so its ids would be wrong; name the "
        "directory of the original model's tokenizer"
    )


def _set_single_digits(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )


def _set_space_prefix(tokenizer: Any, is_added: bool) -> None:
    """Pieces write spaces as ▁; one is added in front of a text, also of one that begins with a space."""
    from tokenizers import normalizers

    rules: list[Any] = [normalizers.Replace(" ", "▁")]
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), *rules] if is_added else rules
    )
    tokenizer.backend_tokenizer.pre_tokenizer = None
