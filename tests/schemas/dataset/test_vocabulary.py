import pytest
from edited_json import edit_json

from logitcask.schemas.dataset.vocabulary import Vocabulary, has_vocabulary, read_vocabulary, write_vocabulary
from logitcask.schemas.errors import FingerprintMismatchError, UnknownFormatVersionError, UsageError

PIECES = (b"<bos>", " ö".encode(), b"\xe4\xb8", b"\x96", b"", b"\n")


def test_every_byte_of_every_piece_comes_back(tmp_path):
    assert write_vocabulary(str(tmp_path), PIECES, "f")
    assert has_vocabulary(str(tmp_path))
    assert read_vocabulary(str(tmp_path), "f") == Vocabulary(pieces=PIECES)


def test_the_first_writer_wins(tmp_path):
    assert write_vocabulary(str(tmp_path), PIECES, "f")
    assert not write_vocabulary(str(tmp_path), PIECES[:1], "g")
    assert read_vocabulary(str(tmp_path), "f").pieces == PIECES


def test_characters_are_joined_over_pieces_and_cut_ones_replaced():
    vocabulary = Vocabulary(pieces=PIECES)
    assert vocabulary.text([1, 2, 3, 5]) == " ö世\n"
    assert vocabulary.text([1, 2]) == " ö\ufffd"


def test_a_missing_file_says_how_to_get_it(tmp_path):
    with pytest.raises(UsageError, match="run the same `logitcask annotate` again"):
        read_vocabulary(str(tmp_path))


def test_another_vocabulary_or_version_is_refused(tmp_path):
    write_vocabulary(str(tmp_path), PIECES, "f")
    with pytest.raises(FingerprintMismatchError, match="of the vocabulary f, the dataset's is g"):
        read_vocabulary(str(tmp_path), "g")
    file = tmp_path / "tokenizer/pieces.json"
    edit_json(file, lambda value: value.update(vocabulary_version=3))
    with pytest.raises(UnknownFormatVersionError, match="version 3"):
        read_vocabulary(str(tmp_path))
