"""Made-up windows, and the shard that a teacher on disk makes of them."""

from collections.abc import Sequence

import numpy as np
from shards import commit

from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.format.metadata import ShardMetadata, Split
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
        parts=tuple(Part(id=f"{number}-{part}", source="made up", offset=0) for part in range(2)),
    )


def commit_annotated(
    out: str, teacher: str, scheme: Scheme, split: Split, windows: Windows, *, num_ids: int | None = None
) -> UnitRecord:
    """Scores windows with a teacher, as `logitcask annotate` would, and writes the shard under the split's name."""
    scorer = load_scorer(ScorerSpec(reference=teacher, device="cpu", dtype="float32", scheme=scheme, num_ids=num_ids))
    metadata = ShardMetadata(
        kind="targets", split=split, window_tokens=WINDOW_TOKENS, tokenizer=load_tokenizer(teacher).info,
        teacher=describe_teacher(teacher, "float32"), scheme=scheme,
    )  # fmt: skip
    return commit(out, metadata, split, windows, scorer.score(windows))
