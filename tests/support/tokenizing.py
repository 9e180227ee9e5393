"""Token units and their settings, small enough for a test."""

from pathlib import Path

from logitcask.pipeline.corpus.fields import Fields
from logitcask.pipeline.corpus.files import find_corpus
from logitcask.pipeline.tokenization.token_shards import TokenSpec
from logitcask.pipeline.units.token_units import TokenUnit, make_token_units
from logitcask.teacher.text.rules import TextRules
from logitcask.teacher.text.tokenizers import load_tokenizer


def make_spec(out: Path, model: Path, **changes: object) -> TokenSpec:
    """Windows of 64 positions, shards of 512."""
    settings = {
        "out": str(out),
        "tokenizer_reference": str(model),
        "tokenizer": load_tokenizer(model).info,
        "rules": TextRules(),
        "chat_split": "auto",
        "fields": Fields(document_bytes=50_000),
        "window_tokens": 64,
        "overlap_tokens": 0,
        "held_out": 0.2,
        "shard_tokens": 512,
        "vocab_size": 1000,
        "corpus_license": None,
    }
    return TokenSpec(**{**settings, **changes})  # pyright: ignore[reportArgumentType]


def make_unit(corpus: Path) -> TokenUnit:
    """The only unit of a small corpus."""
    [unit] = make_token_units(find_corpus([str(corpus)]), "settings", lambda _: [])
    return unit
