"""Whether ids mean the same on both sides: a student learns distributions over ids, so they must."""

from logitcask.schemas.errors import FingerprintMismatchError, VocabularyError
from logitcask.schemas.format.metadata import ShardMetadata, TokenizerInfo


def check_tokenizer(tokenizer: TokenizerInfo, dataset: ShardMetadata) -> None:
    """Refuses a student whose ids mean something else than the shards' ids.

    Raises:
        FingerprintMismatchError: Vocabulary or tokenizer differ; names both.
    """
    if difference := tokenizer_difference(tokenizer, dataset.tokenizer, ("the student", "the shards")):
        raise FingerprintMismatchError(
            f"{difference}; make the student with the tokenizer of the shards: "
            "`logitcask student init --teacher TEACHER --out STUDENT`, with --tokenizer if `annotate` had one; if both "
            "have the same ids, `train --tokenizer` does"
        )


def tokenizer_difference(one: TokenizerInfo, other: TokenizerInfo, names: tuple[str, str]) -> str | None:
    """How the ids of two tokenizers differ in meaning, for a message; None if they do not."""
    for what, field in (("vocabulary", "vocabulary_fingerprint"), ("tokenizer", "fingerprint")):
        if getattr(one, field) != getattr(other, field):
            described = (
                f"{name}: {info.name}, {info.vocab_size} ids, fingerprint {getattr(info, field)}"
                for name, info in zip(names, (one, other), strict=True)
            )
            return f"different {what} fingerprints ({'; '.join(described)})"
    return None


def check_vocabulary_size(num_output_ids: int, dataset: ShardMetadata) -> None:
    """Refuses a student with fewer output ids than the teacher's distribution has.

    Raises:
        VocabularyError: Names both sizes.
    """
    if num_output_ids < dataset.vocab_size:
        raise VocabularyError(
            f"the student predicts {num_output_ids} ids, the shards' teacher {dataset.vocab_size}; a student's "
            "vocabulary may be wider than the teacher's, never narrower: set vocab_size in its configuration"
        )
