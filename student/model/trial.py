"""A student is tried on a few tokens before it is trained or measured.

The loss assumes that a later token changes no earlier row, that logits are
`softcap · tanh(hidden · weightᵀ / softcap)` (some architectures also scale them), and that the parts of a window do not
see each other (with ALiBi, convolutions or a recurrent state they do; with rotary embeddings that are rescaled from a
certain length, the longest part decides for all).
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from logitcask.schemas.errors import StudentError, UsageError
from logitcask.schemas.length_thresholds import trial_tokens
from logitcask.schemas.trial_window import SECOND_PART, trial_tolerance, trial_window
from logitcask.student.model.projection import causal_model, hidden_states, output_projection


def check_weights(model: PreTrainedModel) -> None:
    """Refuses a student whose weights are not all finite.

    Raises:
        StudentError: Names the first weights with NaN or infinity.
    """
    bad = [name for name, weight in model.state_dict().items() if not _is_finite(weight)]
    if bad:
        raise StudentError(
            f"student {model.name_or_path or type(model).__name__}: the weights {', '.join(bad[:3])} "
            f"({len(bad)} in all) hold NaN or infinity; make the student again, or use an undamaged copy"
        )


@torch.no_grad()
def try_student(model: PreTrainedModel, window_tokens: int | None = None) -> None:
    """Tests on a dozen tokens what the loss assumes about a student.

    Args:
        model: The student.
        window_tokens: The length of the windows that it will get: if its configuration states a smaller length from
            which it computes something else, a part longer than that is tried too.

    Raises:
        StudentError: A weight is not finite.
        UsageError: A later token changes an earlier row; trunk and projection together do not give the model's own
            logits; or the second part of a window has other hidden states than the same part alone.
    """
    check_weights(model)
    was_training = model.training
    model.eval()
    embeddings: Any = causal_model(model).get_input_embeddings()
    ids, positions = (torch.from_numpy(values).to(model.device) for values in trial_window(embeddings.weight.shape[0]))
    alone = {"input_ids": ids[:, SECOND_PART], "position_ids": positions[:, SECOND_PART]}
    changed_ids = alone["input_ids"].clone()
    changed_ids[:, -1] = changed_ids[:, 0]
    whole = model(**alone, use_cache=False).logits.float()
    changed = model(**{**alone, "input_ids": changed_ids}, use_cache=False).logits.float()
    alone_BSD = hidden_states(model, alone["input_ids"], alone["position_ids"])
    packed_BSD = hidden_states(model, ids, positions)[:, SECOND_PART]
    behind_BSD = _behind_a_long_part(model, alone["input_ids"], window_tokens or 0)
    model.train(was_training)
    _check_causality(model, changed[:, :-1], whole[:, :-1])
    _check_logits(model, whole, output_projection(model).logits(alone_BSD).float())
    for found_BSD in (packed_BSD, behind_BSD):
        if found_BSD is not None:
            _check_parts(model, found_BSD.float(), alone_BSD.float())


def _behind_a_long_part(model: PreTrainedModel, short_BS: Tensor, window_tokens: int) -> Tensor | None:
    """Hidden states of a short part behind one that is longer than the lengths that the configuration states."""
    length = trial_tokens(causal_model(model).config.get_text_config().to_dict(), window_tokens)
    if not length:
        return None
    embeddings: Any = causal_model(model).get_input_embeddings()
    long_1S = (torch.arange(length, device=model.device)[None] * 7919 + 11) % embeddings.weight.shape[0]
    positions = [torch.arange(part.shape[1], device=model.device)[None] for part in (long_1S, short_BS)]
    return hidden_states(model, torch.cat([long_1S, short_BS], 1), torch.cat(positions, 1))[:, length:]


def _check_causality(model: PreTrainedModel, changed: Tensor, whole: Tensor) -> None:
    error = _relative_error(changed, whole)
    if not error < trial_tolerance(model.dtype):
        raise UsageError(
            f"{type(causal_model(model)).__name__}: a later token changes the logits of earlier ones (relative change "
            f"{error:.2g}): the student sees the tokens that it is to predict; use a causal model, not an encoder such "
            'as BERT (or set "is_decoder": true in its config.json)'
        )


def _check_logits(model: PreTrainedModel, whole: Tensor, ours: Tensor) -> None:
    if not torch.allclose(whole, ours, atol=1e-2 * whole.abs().max().item(), rtol=1e-2):
        raise UsageError(
            f"{type(causal_model(model)).__name__}: its logits are not its output embeddings times its hidden states "
            f"(largest difference {(whole - ours).abs().max().item():.3g}); this architecture is not supported as a "
            "student"
        )


def _check_parts(model: PreTrainedModel, packed: Tensor, alone: Tensor) -> None:
    error, allowed = _relative_error(packed, alone), trial_tolerance(model.dtype)
    if not error < allowed:
        raise UsageError(
            f"{type(causal_model(model)).__name__}: the documents of a window see each other (relative error of the "
            f"second one's hidden states, compared with the document alone: {error:.2g}, allowed: {allowed:g}), but "
            "the teacher's targets are for each document alone; this architecture is not supported as a student: "
            "choose one whose attention restarts where position ids restart (Llama, Gemma, Qwen, GPT-2), not one with "
            "ALiBi, convolutions or a recurrent state"
        )


def _relative_error(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm().clamp(min=1e-6)).item()


def _is_finite(values: Tensor) -> bool:
    if not values.is_floating_point() or not values.numel():
        return True
    # The extrema are NaN if any value is, and need no mask of the tensor's size.
    return all(bool(extreme.isfinite()) for extreme in values.aminmax())
