"""Teachers in GGUF files: header, tokenizer, weights, and the way back to safetensors."""

import pytest
import torch
from gguf import GGUFReader

from logitcask.schemas.errors import TeacherError, TokenizerError
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.model.gguf_header import read_gguf_header
from logitcask.teacher.model.loading import export_model, load_model
from logitcask.teacher.text.tokenizers import load_tokenizer


def test_the_header_agrees_with_the_gguf_packages_reader(write_gguf):
    path = write_gguf()
    header, reader = read_gguf_header(path), GGUFReader(path)
    scalars = {k: f.contents() for k, f in reader.fields.items() if not isinstance(f.contents(), list)}
    assert header.settings == {k: v for k, v in scalars.items() if not k.startswith("GGUF.")}
    assert header.shapes == {t.name: tuple(int(n) for n in t.shape[::-1]) for t in reader.tensors}
    assert header.array_lengths["tokenizer.ggml.tokens"] == len(reader.fields["tokenizer.ggml.tokens"].data)
    assert header.setting("context_length") == 64


def test_a_gguf_teacher_is_described_from_its_header(write_gguf):
    info = describe_teacher(write_gguf(), "float32")
    assert (info.name, info.architecture, info.licence) == ("tiny", "LlamaForCausalLM", "mit")
    assert info.vocab_size == 259
    assert info.num_parameters == 259 * 32 + 3 * 64 * 32 + 4 * 32 * 32 + 3 * 32


@pytest.mark.parametrize("damage", ["empty", "magic", "version", "cut"])
def test_a_damaged_gguf_file_is_refused(write_gguf, damage):
    path = write_gguf()
    data = path.read_bytes()
    damaged = {"empty": b"", "magic": b"NOPE" + data[4:], "version": b"GGUF\x09" + data[5:], "cut": data[:900]}
    path.write_bytes(damaged[damage])
    with pytest.raises(TeacherError, match="not a readable GGUF file"):
        read_gguf_header(path)


def test_a_gguf_model_loads_dense_and_exports_with_identical_logits(write_gguf, tmp_path, capfd):
    model = load_model(write_gguf(), device="cpu")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    export_model(model, tmp_path / "exported")
    assert capfd.readouterr().err == "", "progress bars where nobody asked for them"
    again = load_model(tmp_path / "exported", device="cpu")
    ids = torch.arange(20)[None]
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
    assert not hasattr(again.config, "quantization_config")


def test_smollm_splits_digits_and_leaves_the_spaces_before_them_whole(write_gguf):
    tokenizer = load_tokenizer(write_gguf("smollm"))
    assert [tokenizer.piece(i) for i in tokenizer.encode("a  12  b")] == ["a", "ĠĠ", "1", "2", "Ġ", "Ġ", "b"]


def test_gpt2_leaves_one_space_to_the_number(write_gguf):
    tokenizer = load_tokenizer(write_gguf("gpt-2"))
    assert [tokenizer.piece(i) for i in tokenizer.encode("a  12")] == ["a", "Ġ", "Ġ", "1", "2"]


def test_a_gguf_tokenizer_keeps_its_fingerprints_beside_a_student(write_gguf, tmp_path):
    tokenizer = load_tokenizer(write_gguf())
    tokenizer.save(tmp_path / "student")
    again = load_tokenizer(tmp_path / "student")
    assert again.info.fingerprint == tokenizer.info.fingerprint
    assert again.info.vocabulary_fingerprint == tokenizer.info.vocabulary_fingerprint
    assert (again.info.bos_id, again.info.eos_id) == (1, 0)
    assert again.encode("a  12") == tokenizer.encode("a  12")


def test_a_rule_that_is_not_known_is_refused_rather_than_guessed(write_gguf):
    with pytest.raises(TokenizerError, match="rule 'viking'"):
        load_tokenizer(write_gguf("viking"))


def test_a_gguf_file_without_tokenizer_says_so(write_gguf):
    with pytest.raises(TokenizerError, match="has no tokenizer"):
        load_tokenizer(write_gguf(tokenizer=False))
