"""From hidden states to float32 logits: what a causal model's `forward` does after its last layer.

The stored distribution is defined on logits that are accumulated in float32, whatever dtype the weights have: logits
rounded to bfloat16 move in steps of 0.125 near 20. So the model's own projection is not used.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from logitcask.teacher.scoring.compiled_formulas import compiled_over_rows

# Logits of a chunk of rows: half a gigabyte. Each chunk reads the whole output matrix, so small chunks waste bandwidth,
# and large ones take memory.
_CHUNK_LOGITS = 1 << 27
_MAX_CHUNK_ROWS = 1024
# Rows of the output matrix that are converted to float32 at a time, on devices that cannot accumulate in float32
# otherwise: 8,192 rows of a 2,304-wide model are 75 MB.
_CONVERTED_ROWS = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearHead:
    """logits = softcap(scale · (h Wᵀ + b)), with softcap(z) = c·tanh(z/c).

    Attributes:
        weight: The output matrix, in the model's dtype, [V, D].
        bias: [V], or None.
        scale: 1 for nearly all models.
        softcap: c, or None.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: float
    softcap: float | None

    @property
    def vocab_size(self) -> int:
        return self.weight.shape[0]

    def logits(self, hidden_TD: torch.Tensor, out_TV: torch.Tensor, *, compiled: bool = False) -> torch.Tensor:
        """Writes the logits of some rows into `out_TV` (float32) and returns it.

        A compiled soft-cap passes over the logits once instead of three times.
        """
        self._matmul(hidden_TD, out_TV)
        if self.bias is not None:
            out_TV += self.bias.float()
        if self.scale != 1.0:
            out_TV *= self.scale
        if self.softcap is not None:
            if compiled:
                _compiled_softcap(self.softcap, out_TV.device.type)(out_TV)
            else:
                out_TV.div_(self.softcap).tanh_().mul_(self.softcap)
        return out_TV

    def _matmul(self, hidden_TD: torch.Tensor, out_TV: torch.Tensor) -> None:
        weight_VD = self.weight
        if weight_VD.dtype == torch.float32:
            torch.mm(hidden_TD.float(), weight_VD.T, out=out_TV)
        elif weight_VD.device.type == "cuda":
            torch.mm(hidden_TD.to(weight_VD.dtype), weight_VD.T, torch.float32, out=out_TV)
        else:
            hidden_TD = hidden_TD.float()
            for start in range(0, self.vocab_size, _CONVERTED_ROWS):
                block_TV = out_TV[:, start : start + _CONVERTED_ROWS]
                block_TV.copy_(hidden_TD @ weight_VD[start : start + _CONVERTED_ROWS].float().T)


def project(
    head: LinearHead | None, states_TD: torch.Tensor, out_TV: torch.Tensor, *, compiled: bool = False
) -> torch.Tensor:
    """Writes the logits of a trunk's states into `out_TV`; without a head the states are the logits."""
    return out_TV.copy_(states_TD) if head is None else head.logits(states_TD, out_TV, compiled=compiled)


@functools.cache
def _compiled_softcap(cap: float, device_type: str) -> Callable[[torch.Tensor], Any]:
    return compiled_over_rows(lambda logits_TV: logits_TV.copy_(torch.tanh(logits_TV / cap) * cap), device_type)


def rows_of_chunk(vocab_size: int) -> int:
    """Rows of a chunk, a power of two, for a vocabulary of this size."""
    rows = _MAX_CHUNK_ROWS
    while rows > 1 and rows * vocab_size > _CHUNK_LOGITS:
        rows //= 2
    return rows


def relative_error(actual_TV: torch.Tensor, expected_TV: torch.Tensor) -> float:
    """Norm of the difference of logits, relative to the expected logits less their mean in each row."""
    centered_TV = expected_TV - expected_TV.mean(dim=-1, keepdim=True)
    return float((actual_TV - expected_TV).norm() / centered_TV.norm().clamp(min=1e-6))


def linear_head(model: PreTrainedModel) -> LinearHead | None:
    """The output head that the model's configuration describes; None if it is not a matrix in memory.

    The caller must check that the model's `forward` does the same.
    """
    head: Any = model.get_output_embeddings()
    weight_VD = getattr(head, "weight", None)
    if not isinstance(weight_VD, torch.Tensor) or weight_VD.ndim != 2 or not weight_VD.is_floating_point():
        return None
    if weight_VD.is_meta:  # a device map placed it on the host or disk, from where only `forward` fetches it
        return None
    config = model.config.get_text_config()
    return LinearHead(
        weight=weight_VD,
        bias=getattr(head, "bias", None),
        scale=_scale(config),
        softcap=getattr(config, "final_logit_softcapping", None),
    )


def _scale(config: Any) -> float:
    """Cohere and Falcon-H1 multiply their logits, Granite divides them."""
    scale = (getattr(config, "logit_scale", None) or 1.0) * (getattr(config, "lm_head_multiplier", None) or 1.0)
    return scale / (getattr(config, "logits_scaling", None) or 1.0)
