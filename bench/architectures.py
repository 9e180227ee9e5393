"""Tries every causal language model of the installed `transformers` as a teacher, on tiny random weights.

Each class is saved, loaded as a job loads a teacher, and scores windows of many parts. The targets are compared with a
plain forward of each part alone, which `transformers` computes from the same files. The table that results is
`docs/architectures.md`:

    python bench/architectures.py --out docs/architectures.md
"""

import argparse
import itertools
import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASS_NAMES
from transformers.utils import logging as transformers_logging

from logitcask.schemas.errors import LogitcaskError
from logitcask.schemas.format.scheme import TopKScheme
from logitcask.schemas.format.targets import Kind, Part, Windows
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import load_scorer

# The largest difference of a log-probability, in nats; relative where the log-probability is below -1.
TOLERANCE = 1e-5
VOCAB_SIZE = 96
_MAX_PARAMETERS = 100_000_000
_REASON_CHARACTERS = 150
# Parts of windows: shorter and longer than the sliding windows and chunks of SIZES.
WINDOWS = ((5, 7, 20), (31, 1, 9, 23), (64,), (3, 61))


def _named(value: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), value)


# Small values of settings by name, for those of them that a class has.
SIZES: dict[str, Any] = {
    **_named(VOCAB_SIZE, "vocab_size decoder_vocab_size unpadded_vocab_size vocab_size_per_layer_input"),
    **_named(32, "hidden_size d_model n_embd emb_dim embedding_size embedding_dim input_embedding_size dim"),
    **_named(32, "output_embedding_size word_embed_proj_dim hidden_size_global attention_hidden_size lru_width"),
    **_named(2, "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers"),
    **_named(
        48, "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim d_inner n_inner ffn_hidden_size dff dim_ff"
    ),
    **_named(48, "moe_intermediate_size shared_expert_intermediate_size intermediate_size_mlp feed_forward_size"),
    **_named(48, "shared_intermediate_size expert_ffn_hidden_size dense_intermediate_size moe_dim"),
    **_named(4, "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads"),
    **_named(4, "encoder_attention_heads num_decoder_attention_heads num_encoder_attention_heads index_n_heads"),
    **_named(4, "linear_num_key_heads linear_num_value_heads linear_num_heads mamba_n_heads mamba_num_heads"),
    **_named(2, "num_key_value_heads num_kv_heads"),
    **_named(256, "max_position_embeddings n_positions n_ctx max_seq_len max_target_positions"),
    **_named(8, "sliding_window sliding_window_size attention_window_size window_size local_attention"),
    **_named(8, "attention_chunk_size chunk_size mamba_chunk_size index_topk index_block_size"),
    **_named(4, "num_experts num_local_experts n_routed_experts moe_num_experts num_routed_experts"),
    **_named(2, "num_experts_per_tok moe_topk moe_k num_experts_per_token"),
    **_named(16, "q_lora_rank kv_lora_rank mamba_d_head mamba_head_dim mamba_headdim"),
    **_named(8, "head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim dim_head d_head kv_channels rotary_dim"),
    **_named(8, "index_head_dim swa_head_dim linear_key_head_dim linear_value_head_dim linear_head_dim"),
    **_named(8, "state_size mamba_d_state ssm_state_size time_step_rank attention_head_size"),
    **_named(1, "n_group topk_group n_groups mamba_n_groups"),
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "mamba_d_ssm": 64,
}
# Where a class needs other values.
SPECIAL: dict[str, dict[str, Any]] = {
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "bigbird_pegasus": {"tie_word_embeddings": False},
    "gemma3n_text": {"num_kv_shared_layers": 0, "num_hidden_layers": 5},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"head_dim": 16, "num_heads": 4},
    "reformer": {"is_decoder": True, "attn_layers": ["local", "local"], "axial_pos_embds": False},
    "xmod": {"default_language": "en_XX", "is_decoder": True},
    **{name: {"is_decoder": True} for name in ("bert", "roberta", "electra", "rembert", "xlm-roberta", "roformer")},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one class.

    Attributes:
        model_type, class_name: As `transformers` registers them.
        error: The largest error of a target; None if the model was refused or not tried.
        parts: How parts run (`teacher.scoring.sequences.Grouping`).
        refusal: Why logitcask refused it.
        not_tried: Why no model was built here.
    """

    model_type: str
    class_name: str
    error: float | None = None
    parts: str = ""
    refusal: str = ""
    not_tried: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the targets are right, or the model was refused; not if it was not tried."""
        return bool(self.refusal) or (self.error is not None and self.error <= TOLERANCE)


def tiny_config(model_type: str) -> PreTrainedConfig:
    """A configuration with the sizes of SIZES."""
    return _tiny(CONFIG_MAPPING[model_type], SPECIAL.get(model_type, {}))


def _tiny(kind: type[PreTrainedConfig], special: dict[str, Any]) -> PreTrainedConfig:
    try:
        names = set(kind().to_dict())
    except Exception:
        names = set(kind.__annotations__) | set(special)
    values = {name: value for name, value in SIZES.items() if name in names or name in kind.attribute_map}
    for name, one in getattr(kind, "sub_configs", {}).items():
        if name in names and issubclass(one, PreTrainedConfig) and hasattr(one, "model_type"):
            try:
                values[name] = _tiny(one, special.get(name, {})).to_dict()
            except Exception as error:
                print(f"{one.__name__}: {error}", file=sys.stderr)
    if "kv_lora_rank" in names:  # multi-head latent attention: all heads have keys, and a rotated part
        values["num_key_value_heads"] = 4
    return kind(**(values | special))


def tried(model_type: str, directory: Path) -> Outcome:
    """Builds, saves, loads and scores a model of one type."""
    names = CLASS_NAMES[model_type]
    found = {"model_type": model_type, "class_name": names if isinstance(names, str) else names[0]}
    try:
        config = tiny_config(model_type)
        with torch.device("meta"):
            size = AutoModelForCausalLM.from_config(config).num_parameters()
        if size > _MAX_PARAMETERS:
            raise ValueError(f"{size:,} parameters")
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        _randomize(model)
        model.save_pretrained(directory)
        # As published: the language model of a larger model keeps the larger one's configuration.
        config.save_pretrained(directory)
    except Exception as error:
        return Outcome(**found, not_tried=_first_line(error))
    windows = windows_of(WINDOWS)
    spec = ScorerSpec(
        reference=str(directory), dtype="float32", device="cpu", scheme=TopKScheme(k=16), batch_tokens=256,
        window_tokens=64,
    )  # fmt: skip
    try:
        scorer = load_scorer(spec)
        targets = scorer.score(windows)
    except LogitcaskError as error:
        return Outcome(**found, refusal=_first_line(error))
    plain = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    expected_TV = plain_forward(plain, windows)
    rows = np.repeat(np.arange(windows.num_positions), targets.head_widths())
    labels = np.flatnonzero(windows.has_label())
    error = max(
        _largest_error(targets.head_log_probs, expected_TV[rows, targets.head_ids]),
        _largest_error(targets.log_next[labels], expected_TV[labels, windows.next_token()[labels]]),
    )
    return Outcome(**found, error=error, parts=scorer.trunk.grouping.text())


def _largest_error(actual: np.ndarray, expected: np.ndarray) -> float:
    return float((np.abs(actual - expected) / np.maximum(1, np.abs(expected))).max())


@torch.inference_mode()
def plain_forward(model: PreTrainedModel, windows: Windows) -> np.ndarray:
    """log p of all rows, from a forward pass of each part alone, float64 [T, V]."""
    starts = [*np.flatnonzero(windows.part_starts()).tolist(), windows.num_positions]
    rows = []
    for start, stop in itertools.pairwise(starts):
        ids = torch.from_numpy(windows.token[start:stop]).long()[None]
        rows.append(model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1))
    return torch.cat(rows).numpy()


def windows_of(lengths: Sequence[Sequence[int]]) -> Windows:
    """Windows of random parts of these lengths; no ids that control a model."""
    parts = [length for window in lengths for length in window]
    total = sum(parts)
    return Windows(
        token=np.random.default_rng(0).integers(3, VOCAB_SIZE - 8, total).astype(np.int32),
        kind=np.full(total, Kind.TRAIN, np.uint8),
        part=np.repeat(np.arange(len(parts), dtype=np.int32), parts),
        window_offsets=np.cumsum([0, *(sum(window) for window in lengths)]).astype(np.int64),
        parts=tuple(Part(id=str(number), source="", offset=0) for number in range(len(parts))),
    )


@torch.no_grad()
def _randomize(model: PreTrainedModel) -> None:
    """Biases begin as zero and norms as one, which would hide that they are left out."""
    for weight in model.parameters():
        if weight.ndim == 1:
            weight += 0.1 * torch.randn_like(weight)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


_PAGE = """# Architectures as teachers

`make architectures` tries all {number} causal language models of transformers {version}, with tiny random weights. Each
is saved, loaded as `annotate` loads a teacher, and scores windows of many documents. The error is the largest
difference of a log-probability from a plain float32 forward pass of each document alone (relative where it is below
−1).

{right} give the targets of a plain forward pass, {refused} are refused with the reason, and {not_tried} could not be
built here with tiny sizes.

Whatever the table says, each teacher is tried itself before the first unit, with its own weights and at lengths up to
`--window`. A later token must change no earlier row, logits must be finite, and documents share windows or batches only
where that changes nothing: otherwise each runs as a sequence, apart from longer ones, or by itself.

| model type | class | largest error | how documents run, or why not |
|---|---|---|---|
{rows}
"""


def page(outcomes: Sequence[Outcome]) -> str:
    """`docs/architectures.md`."""
    return _PAGE.format(
        number=len(outcomes),
        version=version("transformers"),
        right=sum(one.error is not None for one in outcomes),
        refused=sum(bool(one.refusal) for one in outcomes),
        not_tried=sum(bool(one.not_tried) for one in outcomes),
        rows="\n".join(f"| {one.model_type} | {one.class_name} | {_cells(one)} |" for one in outcomes),
    )


def _cells(one: Outcome) -> str:
    if one.not_tried:
        return f"– | not tried: {_short(one.not_tried)}"
    return f"refused | {_short(one.refusal)}" if one.refusal else f"{one.error:.0e} | {one.parts}"


def _short(reason: str) -> str:
    """The reason in a cell of the table, without the rest of a long message and temporary names."""
    reason = re.sub(r"'tmp\w+'|/\S*tmp\w+", "it", reason).replace("|", "/").removeprefix("TeacherError: ")
    return reason if len(reason) <= _REASON_CHARACTERS else reason[: _REASON_CHARACTERS - 1].rstrip() + "…"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+", default=sorted(CLASS_NAMES))
    options = parser.parse_args()
    logging.disable()
    transformers_logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    outcomes = []
    for model_type in options.only:
        with tempfile.TemporaryDirectory() as directory:
            outcome = tried(model_type, Path(directory))
        print(f"{outcome.model_type:<30}{_cells(outcome)}", flush=True)
        outcomes.append(outcome)
    if options.out:
        options.out.write_text(page(outcomes), encoding="utf-8")
    wrong = [one.model_type for one in outcomes if not (one.is_right or one.not_tried)]
    if wrong:
        raise SystemExit(f"wrong targets: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
