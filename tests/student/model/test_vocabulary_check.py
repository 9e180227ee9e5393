"""Whether ids mean the same in a student and in shards."""

import pytest

from logitcask.schemas.errors import VocabularyError
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.model.vocabulary_check import check_tokenizer, check_vocabulary_size, tokenizer_difference


@pytest.fixture
def metadata(dataset_url) -> ShardMetadata:
    return SoftTargetDataset(dataset_url).metadata


def test_equal_tokenizers_pass(tokenizer_info, metadata):
    check_tokenizer(tokenizer_info(), metadata)
    assert tokenizer_difference(tokenizer_info(), metadata.tokenizer, ("one", "other")) is None


def test_a_difference_names_both_sides_and_their_fingerprints(tokenizer_info):
    one, other = tokenizer_info(), tokenizer_info(fingerprint="0" * 32)
    found = tokenizer_difference(one, other, ("the student", "the shards"))
    assert found == (
        f"different tokenizer fingerprints (the student: made up, 46 ids, fingerprint {'f' * 32}; "
        f"the shards: made up, 46 ids, fingerprint {'0' * 32})"
    )


def test_a_student_may_predict_more_ids_but_not_fewer(metadata):
    check_vocabulary_size(48, metadata)
    check_vocabulary_size(64, metadata)
    with pytest.raises(VocabularyError, match="predicts 47 ids, the shards' teacher 48"):
        check_vocabulary_size(47, metadata)
