"""What a long window costs, for a warning before the job begins: attention grows with the square of a part's length."""

from dataclasses import dataclass
from pathlib import Path

from logitcask.schemas.length_thresholds import max_sequence_tokens
from logitcask.teacher.model.description import text_config
from logitcask.teacher.model.gguf_header import read_gguf_header
from logitcask.teacher.model.references import resolve

# Windows up to this length are cheap, and are never cut into sequences (`teacher.scoring.sequences`).
_LONG_TOKENS = 4096
# The length that a long window is compared with.
_COMPARED_TOKENS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionShape:
    """The sizes that decide the cost of attention.

    Attributes:
        num_layers: Layers.
        width: Number of heads times the width of a head.
        slides: Whether some layers attend to a sliding window only, for which `transformers` makes a mask.
    """

    num_layers: int
    width: int
    slides: bool


def describe_long_window(teacher: str | Path, num_parameters: int, window_tokens: int) -> str | None:
    """One human-readable line; None for a window that is not long.

    Args:
        teacher: Directory, hub id or `.gguf` file.
        num_parameters: Of the teacher.
        window_tokens: Maximum positions of a window.
    """
    if window_tokens <= _LONG_TOKENS:
        return None
    shape = attention_shape(teacher)
    times = token_cost(shape, num_parameters, window_tokens) / token_cost(shape, num_parameters, _COMPARED_TOKENS)
    line = (
        f"--window {window_tokens}: a token of a document that fills a window costs {times:.1f} times what it costs at "
        f"--window {_COMPARED_TOKENS} (attention); tokens of shorter documents cost less"
    )
    if shape.slides:
        line += f"; sliding layers need a mask of {window_tokens**2 / 1e9:.1f} GB for such a document"
    return line


def token_cost(shape: AttentionShape, num_parameters: int, part_tokens: int) -> float:
    """Multiplications for one token of a part: one per weight, and two per layer, unit of width and earlier token.

    On average, half of the part's tokens are earlier.
    """
    return num_parameters + 2 * shape.num_layers * shape.width * part_tokens / 2


def max_part_tokens(teacher: str | Path) -> int | None:
    """The longest sequence that the teacher can attend to, if its files state it."""
    resolved = resolve(teacher)
    if resolved.kind == "gguf":
        return read_gguf_header(resolved.path).setting("context_length")
    return max_sequence_tokens(text_config(resolved))


def attention_shape(teacher: str | Path) -> AttentionShape:
    """The sizes in the teacher's configuration, or in its GGUF header."""
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
    config = text_config(resolved)
    kinds = getattr(config, "layer_types", None)
    slides = "sliding_attention" in kinds if kinds else bool(getattr(config, "sliding_window", None))
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return AttentionShape(
        num_layers=config.num_hidden_layers, width=config.num_attention_heads * head_width, slides=slides
    )
