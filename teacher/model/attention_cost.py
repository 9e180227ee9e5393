"""What a long window costs, said before the job begins: attention grows with the square of what it looks back on."""

from dataclasses import dataclass
from pathlib import Path

from logitcask.teacher.model.gguf_header import read_gguf_header
from logitcask.teacher.model.references import resolve


def max_part_tokens(teacher: str) -> int | None:
    """The longest sequence that the teacher was made for, where its files say so."""
    from transformers import AutoConfig

    resolved = resolve(teacher)
    if resolved.kind == "gguf":
        return read_gguf_header(resolved.path).setting("context_length")
    config = AutoConfig.from_pretrained(resolved.path, trust_remote_code=False, local_files_only=True)
    return getattr(config.get_text_config(), "max_position_embeddings", None)


# Windows up to here are cheap, and are never scored in pieces for their length (`teacher.scoring.sequences`).
_LONG_TOKENS = 4096


_COMPARED_TOKENS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionShape:
    """What decides the cost of attention.

    Attributes:
        num_layers: Layers.
        width: Heads times the width of one.
        slides: Whether some layers see a sliding window only, for which `transformers` makes a mask.
    """

    num_layers: int
    width: int
    slides: bool


def describe_long_window(teacher: str | Path, num_parameters: int, window_tokens: int) -> str | None:
    """One line for people; None where there is nothing to say.

    Args:
        teacher: Directory, hub id or `.gguf` file.
        num_parameters: Of the teacher.
        window_tokens: Most positions of a window.
    """
    if window_tokens <= _LONG_TOKENS:
        return None
    shape = attention_shape(teacher)
    times = token_cost(shape, num_parameters, window_tokens) / token_cost(shape, num_parameters, _COMPARED_TOKENS)
    line = (
        f"--window {window_tokens}: a token of a document that fills a window costs {times:.1f} times what it does at "
        f"--window {_COMPARED_TOKENS} (attention); shorter documents do not"
    )
    if shape.slides:
        line += f"; sliding layers need a mask of {window_tokens**2 / 1e9:.1f} GB for it"
    return line


def token_cost(shape: AttentionShape, num_parameters: int, part_tokens: int) -> float:
    """Multiplications a token in a part of such a length: one a weight, and two a layer, width and earlier token."""
    return num_parameters + 2 * shape.num_layers * shape.width * part_tokens / 2


def attention_shape(teacher: str | Path) -> AttentionShape:
    """Read from the teacher's configuration, or its GGUF header."""
    resolved = resolve(teacher)
    if resolved.kind == "gguf":
        header = read_gguf_header(resolved.path)
        width = header.setting("embedding_length")
        head_width = header.setting("attention.key_length")
        return AttentionShape(
            num_layers=header.setting("block_count"),
            width=header.setting("attention.head_count") * head_width if head_width else width,
            slides=bool(header.setting("attention.sliding_window")),
        )
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(resolved.path, trust_remote_code=False, local_files_only=True).get_text_config()
    kinds = getattr(config, "layer_types", None)
    slides = "sliding_attention" in kinds if kinds else bool(getattr(config, "sliding_window", None))
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return AttentionShape(
        num_layers=config.num_hidden_layers, width=config.num_attention_heads * head_width, slides=slides
    )
