"""The formulas of the cost planner, each with its source. Pure functions of FLOP, bytes and money."""

from logitcask.pipeline.planner.model_shapes import ModelShape

# Dense bfloat16 FLOP/s without sparsity, from NVIDIA's data sheets (H100 and H200 SXM, A100 SXM).
PEAK_FLOP_PER_SECOND = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
# Hoffmann et al. 2022 (Chinchilla), tables 3 and A3: about this many tokens a parameter.
OPTIMAL_TOKENS_PER_PARAMETER = 20
# Backward costs twice the forward pass (Kaplan et al. 2020, section 2.1).
TRAINING_FORWARDS = 3
_BFLOAT16_BYTES = 2
# An id and a value in 32 bits, uncompressed.
_RAW_ENTRY_BYTES = 4


def mean_keys(window_tokens: int, local_window: int | None = None) -> float:
    """Mean number of keys that a position attends to, including itself, over a causal window of S: (S + 1)/2.

    With a local window w < S: (w·(w + 1)/2 + (S − w)·w) / S.
    """
    if local_window is None or local_window >= window_tokens:
        return (window_tokens + 1) / 2
    full = local_window * (local_window + 1) / 2
    return (full + (window_tokens - local_window) * local_window) / window_tokens


def forward_flop_per_token(shape: ModelShape, window_tokens: int) -> float:
    """FLOP of a forward pass with logits for one token: 2·(N + V·d) + Σ over layers of 4·h·hd·keys.

    Two FLOP for each weight that is multiplied with (Kaplan et al. 2020, section 2.1), and for each key the dot
    product with the query and the weighted sum of values, over all heads. Without --layers, attention is not counted.
    """
    globally = (shape.num_layers - shape.num_local_layers) * mean_keys(window_tokens)
    locally = shape.num_local_layers * mean_keys(window_tokens, shape.local_window)
    return 2 * shape.parameters + 4 * shape.attention_width * (globally + locally)


def tokens_per_second(
    flop_per_token: float, *, num_gpus: int, peak_flop_per_second: float, utilization: float
) -> float:
    """GPUs · MFU · peak / FLOP a token. MFU: model FLOP utilization (Chowdhery et al. 2022, appendix B)."""
    return num_gpus * utilization * peak_flop_per_second / flop_per_token


def training_flop_per_token(shape: ModelShape, window_tokens: int) -> float:
    """FLOP of a forward and a backward pass for one token: three forward passes (`TRAINING_FORWARDS`)."""
    return TRAINING_FORWARDS * forward_flop_per_token(shape, window_tokens)


def dense_bytes_per_token(vocab_size: int) -> int:
    """Bytes of every logit in bfloat16."""
    return _BFLOAT16_BYTES * vocab_size


def raw_top_k_bytes_per_token(k: int) -> int:
    """Bytes of k uncompressed entries of 32 bits: an id of 18 bits and a value of 14."""
    return _RAW_ENTRY_BYTES * k


def optimal_multiple(num_tokens: float, parameters: int) -> float:
    """Tokens as a multiple of the compute-optimal number, 20 a parameter (`OPTIMAL_TOKENS_PER_PARAMETER`)."""
    return num_tokens / (OPTIMAL_TOKENS_PER_PARAMETER * parameters)


def passes_to_break_even(teacher_cost: float, storage_cost: float, read_cost: float) -> float:
    """Passes over the corpus (students times epochs) above which caching is cheaper than a live teacher.

    Caching costs T + S + n·R and a live teacher n·T, so n > (T + S) / (T − R); infinite if reading a pass costs at
    least as much as the teacher's pass. The student's cost is the same on both sides.

    Args:
        teacher_cost: T, the cost of the teacher's forward passes over the corpus once.
        storage_cost: S, the cost of writing and keeping the shards.
        read_cost: R, the cost of moving the shards to a student once.
    """
    return (teacher_cost + storage_cost) / (teacher_cost - read_cost) if teacher_cost > read_cost else float("inf")
