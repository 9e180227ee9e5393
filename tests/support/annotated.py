"""Random windows of two parts, and the dataset that a teacher on disk makes of them."""

from collections.abc import Mapping, Sequence

import numpy as np

from logitcask.schemas import DatasetWriter
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.format.metadata import Split
from logitcask.schemas.format.scheme import Scheme
from logitcask.schemas.format.targets import Kind, Part, Windows
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import load_scorer
from logitcask.teacher.text.tokenizers import load_tokenizer

WINDOW_TOKENS = 24
NUM_IDS = 1000


def two_parts(number: int, *, second_at: int, prompts: Sequence[int] = ()) -> Windows:
    """A window of ids below 1,000 in two parts; rows of `prompts` have no target."""
    kind = np.full(WINDOW_TOKENS, Kind.TRAIN, np.uint8)
    kind[list(prompts)] = Kind.PROMPT
    return Windows(
        token=np.random.default_rng(number).integers(4, NUM_IDS, WINDOW_TOKENS).astype(np.int32),
        kind=kind,
        part=(np.arange(WINDOW_TOKENS) >= second_at).astype(np.int32),
        window_offsets=np.array([0, WINDOW_TOKENS]),
        parts=tuple(Part(id=f"{number}-{part}", source="random", offset=0) for part in range(2)),
    )


def write_scored_dataset(
    out: str, teacher: str, scheme: Scheme, windows: Mapping[Split, Windows], *, num_ids: int | None = None
) -> str:
    """Scores the windows of each split with a teacher, as `logitcask annotate` would; returns the dataset's URL."""
    scorer = load_scorer(ScorerSpec(reference=teacher, device="cpu", dtype="float32", scheme=scheme, num_ids=num_ids))
    identity = Identity(
        tokenizer=load_tokenizer(teacher).info, teacher=describe_teacher(teacher, "float32"), scheme=scheme,
        num_ids=num_ids, window_tokens=WINDOW_TOKENS,
    )  # fmt: skip
    with DatasetWriter(out, identity) as writer:
        for split, windows_of_split in windows.items():
            writer.write(windows_of_split, scorer.score(windows_of_split), split=split)
    return out
