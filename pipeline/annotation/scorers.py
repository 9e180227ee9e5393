"""The scorer of a worker process: loaded once, shared by all its units."""

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from logitcask.schemas.format.scheme import Scheme

if TYPE_CHECKING:
    # torch is not needed before the first window is scored; workers of the other stage never need it.
    from logitcask.teacher.scoring.protocol import Scorer


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerSpec:
    """How the teacher runs; all of it pinned for the life of a dataset, because it moves the low bits.

    Attributes:
        reference: Directory, hub id or `.gguf` file.
        device: "cpu", "cuda" or "cuda:1".
        dtype: Of weights and forward pass.
        attention: Attention implementation of `transformers`.
        num_threads: CPU threads of a worker.
        batch_tokens: Most positions of a forward pass, padding included.
        row_chunk: Positions whose logits exist at a time; None for what suits the teacher's vocabulary.
        scheme: How heads are chosen.
        temperatures: Further temperatures at which the tail is stored.
        num_ids: Ids from here on are padding of the vocabulary and get no probability; None if there are none.
        kernel: What passes over the logits (`teacher.scoring.block_sums`).
        device_map: Instead of one device, how the teacher is spread (`teacher.model.loading.load_model`).
    """

    reference: str
    device: str
    dtype: str
    attention: str
    num_threads: int
    batch_tokens: int
    row_chunk: int | None
    scheme: Scheme
    temperatures: tuple[float, ...] = ()
    num_ids: int | None = None
    kernel: str = "auto"
    device_map: str | None = None


_scorer_lock = threading.Lock()


_scorers: dict[ScorerSpec, "Scorer"] = {}


def cached_scorer(spec: ScorerSpec) -> "Scorer":
    """This process's teacher, loaded once; another spec takes its place.

    Raises:
        TeacherError: It cannot be loaded.
    """
    import torch

    # For every unit, because OpenMP keeps the number for each calling thread, and Beam has many.
    torch.set_num_threads(spec.num_threads)
    # The batch size is no reason to load a teacher again.
    key = replace(spec, batch_tokens=0)
    with _scorer_lock:
        if key not in _scorers:
            _scorers.clear()
            _scorers[key] = load_scorer(spec)
        _scorers[key].batch_tokens = spec.batch_tokens
        return _scorers[key]


def load_scorer(spec: ScorerSpec) -> "Scorer":
    """Loads the teacher as the spec says."""
    from logitcask.teacher.model.loading import load_model
    from logitcask.teacher.scoring.huggingface import HuggingFaceScorer

    model = load_model(spec.reference, spec.dtype, spec.device, spec.attention, device_map=spec.device_map)
    return HuggingFaceScorer(
        model,
        spec.scheme,
        batch_tokens=spec.batch_tokens,
        row_chunk=spec.row_chunk,
        temperatures=spec.temperatures,
        num_ids=spec.num_ids,
        kernel=spec.kernel,
    )
