"""The scorer protocol: tokens of windows in, targets out."""

from typing import Any, Protocol

import numpy as np

from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.stats.vocabulary_statistics import VocabularyStatistics


class Scorer(Protocol):
    """Tokens of windows → head, tail, next-token log-probability and entropy of each row with a target.

    Attributes:
        batch_tokens: Most positions of a forward pass; may be set.
        num_halvings: How often what one window takes was halved, because memory ran out; may be set.
    """

    batch_tokens: int
    num_halvings: int

    @property
    def vocab_size(self) -> int:
        """Width of the distribution."""
        ...

    @property
    def environment(self) -> dict[str, Any]:
        """What moves the low bits of targets (`teacher.model.environment`)."""
        ...

    def score(self, windows: Windows) -> Targets:
        """Targets of all rows, in order; rows without a target have empty heads and samples, and NaN.

        Raises:
            NonFiniteError: The teacher gave NaN or infinity; names the row.
            VocabularyError: A token is not in the teacher's vocabulary.
        """
        ...

    def score_and_measure(self, windows: Windows, measured_T: np.ndarray) -> tuple[Targets, VocabularyStatistics]:
        """The same, and what the marked rows (bool [T]) look like over the whole vocabulary, where they have targets.

        Raises:
            As `score`.
        """
        ...
