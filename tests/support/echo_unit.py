"""An annotation unit for the fake teacher: windows, the metadata of its shard, and its token shard in storage."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from logitcask.pipeline.annotation.annotate_unit import AnnotationSpec
from logitcask.pipeline.units.annotation_units import AnnotationUnit
from logitcask.schemas import storage
from logitcask.schemas.dataset.layout import shard_path
from logitcask.schemas.dataset.token_unit_record import TokenShard
from logitcask.schemas.format.metadata import ShardMetadata, TeacherInfo, TokenizerInfo
from logitcask.schemas.format.scheme import ThresholdScheme
from logitcask.schemas.format.writer import encode_shard
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.text.packing import full_windows

NUM_WINDOWS, WINDOW_TOKENS = 70, 10
WINDOWS = full_windows(np.arange(NUM_WINDOWS * WINDOW_TOKENS, dtype=np.int32), WINDOW_TOKENS)
TOKENIZER = TokenizerInfo(
    name="t", fingerprint="f", vocabulary_fingerprint="v", vocab_size=1000, bos_id=None, eos_id=None, chat_template=None
)
TEACHER = TeacherInfo(
    name="t", fingerprint="f", vocab_size=1000, dtype="float32", architecture="a", num_parameters=1, licence=None,
    final_logit_softcap=None,
)  # fmt: skip
METADATA = ShardMetadata(
    kind="targets", split="train", window_tokens=WINDOW_TOKENS, tokenizer=TOKENIZER, teacher=TEACHER,
    scheme=ThresholdScheme(), has_entropy=True,
)  # fmt: skip


def write_unit(out: Path, kind: str) -> tuple[AnnotationUnit, AnnotationSpec]:
    """A unit with its token shard under `out`, and a spec with a scorer of this kind."""
    metadata = replace(METADATA, kind="tokens", teacher=None, scheme=None, has_entropy=False)
    shard = encode_shard(WINDOWS, None, metadata)
    assert storage.create(storage.join(str(out), shard_path("tokens", "train", "tokens")), shard.data)
    tokens = TokenShard(
        name="tokens",
        split="train",
        num_windows=NUM_WINDOWS,
        num_positions=WINDOWS.num_positions,
        num_documents=WINDOWS.num_documents(),
        footer_digest=shard.footer_digest,
    )
    scorer = ScorerSpec(kind=kind, reference="nowhere", device="cpu", dtype="float32", scheme=ThresholdScheme())
    spec = AnnotationSpec(
        out=str(out),
        scorer=replace(scorer, batch_tokens=100),
        teacher=TEACHER,
        tokenizer=TOKENIZER,
        window_tokens=WINDOW_TOKENS,
        has_entropy=True,
        corpus_license="CC0",
    )
    return AnnotationUnit(name="target", tokens=tokens), spec
