"""The seam between a job and the engine that computes its targets: the settings of a scorer, and what a scorer does.

Nothing here needs torch. `teacher.scoring.registry` finds the scorer that a spec names.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from logitcask.schemas.format.scheme import Scheme
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.stats.vocabulary_statistics import VocabularyStatistics


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerSpec:
    """How a teacher runs. A dataset keeps all of it pinned, because it moves the low bits of targets. Picklable.

    Attributes:
        kind: Name of the scorer in `teacher.scoring.registry`.
        reference: Directory, hub id or `.gguf` file of the teacher.
        device: "cpu", "cuda" or "cuda:1".
        dtype: Of weights and forward pass.
        scheme: How heads are chosen.
        attention: Attention implementation of `transformers`, or "auto".
        num_threads: CPU threads of a worker; None keeps the process's number.
        batch_tokens: Maximum positions of a forward pass, padding included.
        row_chunk: Positions whose logits exist at a time; None for what suits the teacher's vocabulary.
        temperatures: Further temperatures at which the tail is stored.
        num_ids: Ids from here on are padding of the vocabulary and get no probability; None if there are none.
        kernel: What passes over the logits (`teacher.scoring.block_sums`).
        device_map: Spreads the teacher over several devices (`teacher.model.loading.load_model`).
        window_tokens: The longest part that will come, so that the teacher is tried at that length; None if not known.
        each_part_alone: Runs every part by itself, as a plain forward does: slow, to check what batches gave.
    """

    kind: str = "huggingface"
    reference: str
    device: str
    dtype: str
    scheme: Scheme
    attention: str = "auto"
    num_threads: int | None = None
    batch_tokens: int = 4096
    row_chunk: int | None = None
    temperatures: tuple[float, ...] = ()
    num_ids: int | None = None
    kernel: str = "auto"
    device_map: str | None = None
    window_tokens: int | None = None
    each_part_alone: bool = False


class Scorer(Protocol):
    """Turns tokens of windows into the head, tail, next-token log-probability and entropy of each row with a target.

    Attributes:
        batch_tokens: Maximum positions of a forward pass; may be set between calls.
        num_halvings: How often the pieces in which one window is scored were halved, because memory ran out; may be
            set between calls.
    """

    batch_tokens: int
    num_halvings: int

    @property
    def vocab_size(self) -> int:
        """Width of the distribution."""
        ...

    @property
    def environment(self) -> dict[str, Any]:
        """What moves the low bits of targets (`teacher.model.environment`), as JSON values."""
        ...

    def prepare_thread(self) -> None:
        """Gives the calling thread the spec's settings that hold for one thread only, such as the OpenMP threads."""
        ...

    def score(self, windows: Windows) -> Targets:
        """Targets of all rows, in order; rows without a target have empty heads and samples, and NaN.

        Raises:
            NonFiniteError: The teacher gave NaN or infinity; names the row.
            VocabularyError: A token is not in the teacher's vocabulary.
            MemoryExhaustedError: The windows do not fit into memory; says whether smaller pieces can be tried.
        """
        ...

    def score_and_measure(self, windows: Windows, measured_T: np.ndarray) -> tuple[Targets, VocabularyStatistics]:
        """As `score`, and vocabulary statistics of the marked rows (bool [T]) that have targets.

        Raises:
            As `score`.
        """
        ...
