"""The pieces in a dataset spell the text that the tokenizer decodes."""

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from logitcask.schemas.dataset.vocabulary import Vocabulary
from logitcask.teacher.text.pieces import piece_bytes
from logitcask.teacher.text.tokenizers import Tokenizer, load_tokenizer

TEXT = "Grüße, 世界! \n\tif x == 1:  # 👍\x00 end"


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory, english: str) -> Tokenizer:
    """A byte-level BPE of 600 pieces and a control token."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([english[:50_000]], trainer)
    directory = tmp_path_factory.mktemp("byte-level")
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(directory)
    return load_tokenizer(directory)


def test_byte_level_pieces_give_every_byte_of_the_text(byte_level):
    vocabulary = Vocabulary(pieces=tuple(piece_bytes(byte_level)))
    assert byte_level.spelling == "byte-level"
    assert vocabulary.join(byte_level.encode(TEXT)) == TEXT.encode()
    assert vocabulary.piece(byte_level.info.eos_id) == b"<eos>"


def test_sentencepiece_pieces_give_the_text_after_one_space(sentencepiece_model):
    tokenizer = load_tokenizer(sentencepiece_model)
    vocabulary = Vocabulary(pieces=tuple(piece_bytes(tokenizer)))
    text = "Grüße, 世界! if x == 1: # 👍 end"
    assert vocabulary.text(tokenizer.encode(text)) == f" {text}"


def test_an_id_beyond_the_vocabulary_is_empty(byte_level):
    assert Vocabulary(pieces=tuple(piece_bytes(byte_level))).join([10_000, -1]) == b""
