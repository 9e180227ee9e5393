"""Small random models of many architectures, windows for them, and their targets by a plain forward."""

import itertools
from typing import Any

import numpy as np
import torch
import transformers as tf

from logitcask.schemas.format.scheme import Scheme
from logitcask.schemas.format.targets import Part, Targets, Windows
from logitcask.teacher.scoring.huggingface import HuggingFaceTrunk
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.trunk_scorer import TrunkScorer

VOCAB_SIZE = 307
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
GEMMA_SIZES = {**SIZES, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6}
CONFIGS = {
    "gemma2": lambda: tf.Gemma2Config(**GEMMA_SIZES),
    "gemma3": lambda: tf.Gemma3TextConfig(**GEMMA_SIZES),
    # As Gemma 3 4B is published: a language model inside a model that also reads images.
    "gemma3 with vision": lambda: tf.Gemma3Config(
        text_config=tf.Gemma3TextConfig(**GEMMA_SIZES).to_dict(),
        vision_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        image_token_index=VOCAB_SIZE,
    ),
    "llama": lambda: tf.LlamaConfig(**SIZES),
    "qwen3": lambda: tf.Qwen3Config(**SIZES, head_dim=8),
    "mistral": lambda: tf.MistralConfig(**SIZES, sliding_window=5),
    "phi": lambda: tf.PhiConfig(**SIZES),  # has a bias in its head
    "cohere": lambda: tf.CohereConfig(**SIZES, logit_scale=0.25),
    "granite": lambda: tf.GraniteConfig(**SIZES, logits_scaling=3.0),
    "gpt2": lambda: tf.GPT2Config(
        vocab_size=VOCAB_SIZE, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3
    ),
}


def random_model(name: str) -> tf.PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tf.AutoModelForCausalLM.from_config(CONFIGS[name]())
        head = model.get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            torch.nn.init.normal_(head.bias)
    return model.eval().requires_grad_(False)


def scorer_of(model: tf.PreTrainedModel, scheme: Scheme, **options: Any) -> TrunkScorer:
    spec = ScorerSpec(reference="made up", device="cpu", dtype="float32", scheme=scheme, **options)
    trunk = HuggingFaceTrunk(model, window_tokens=spec.window_tokens, each_part_alone=spec.each_part_alone)
    return TrunkScorer(trunk, spec)


def random_windows(part_lengths: list[list[int]], seed: int = 0) -> Windows:
    """Windows of parts of the given lengths."""
    lengths = [length for window in part_lengths for length in window]
    return Windows(
        token=np.random.default_rng(seed).integers(VOCAB_SIZE, size=sum(lengths), dtype=np.int32),
        kind=np.zeros(sum(lengths), dtype=np.uint8),
        part=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        window_offsets=np.cumsum([0] + [sum(window) for window in part_lengths]),
        parts=tuple(Part(id=f"d{i}", source=f"corpus#{i}", offset=0) for i in range(len(lengths))),
    )


PACKED = random_windows([[9, 3, 12], [20], [1, 4, 1], [13, 11]])


def plain_forward(model: tf.PreTrainedModel, windows: Windows) -> np.ndarray:
    """log p of every row from each part alone, by the model's own forward, float64 [T, V]."""
    starts = [*np.flatnonzero(windows.part_starts()), windows.num_positions]
    rows = []
    for start, stop in itertools.pairwise(starts):
        ids = torch.from_numpy(windows.token[start:stop]).long()[None]
        rows.append(model(input_ids=ids).logits[0].double().log_softmax(-1))
    return torch.cat(rows).numpy()


def assert_targets_equal(targets: Targets, log_probs_TV: np.ndarray, windows: Windows) -> None:
    next_token = windows.next_token()
    for row in np.flatnonzero(windows.has_target()):
        expected, entries = log_probs_TV[row], slice(*targets.head_offsets[row : row + 2])
        ids = targets.head_ids[entries]
        np.testing.assert_allclose(targets.head_log_probs[entries], expected[ids], atol=1e-5)
        assert np.exp(expected[ids]).min() >= np.exp(np.delete(expected, ids)).max(initial=0) - 1e-6
        np.testing.assert_allclose(np.exp(targets.log_tail[row]), np.exp(np.delete(expected, ids)).sum(), atol=1e-5)
        np.testing.assert_allclose(targets.entropy[row], -(np.exp(expected) * expected).sum(), atol=1e-5)
        if next_token[row] >= 0:
            np.testing.assert_allclose(targets.log_next[row], expected[next_token[row]], atol=1e-5)
        assert targets.top1_ids[row] == expected.argmax()
