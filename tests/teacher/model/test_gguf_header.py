"""The header of a GGUF file, against the reader of the `gguf` package."""

import pytest
from gguf import GGUFReader

from logitcask.schemas.errors import TeacherError
from logitcask.teacher.model.gguf_header import read_gguf_header


def test_the_header_equals_that_of_the_gguf_packages_reader(write_gguf):
    path = write_gguf()
    header, reader = read_gguf_header(path), GGUFReader(path)
    scalars = {k: f.contents() for k, f in reader.fields.items() if not isinstance(f.contents(), list)}
    assert header.settings == {k: v for k, v in scalars.items() if not k.startswith("GGUF.")}
    assert header.shapes == {t.name: tuple(int(n) for n in t.shape[::-1]) for t in reader.tensors}
    assert header.array_lengths["tokenizer.ggml.tokens"] == len(reader.fields["tokenizer.ggml.tokens"].data)
    assert header.setting("context_length") == 64


@pytest.mark.parametrize("damage", ["empty", "magic", "version", "cut"])
def test_a_damaged_gguf_file_is_refused(write_gguf, damage):
    path = write_gguf()
    data = path.read_bytes()
    damaged = {"empty": b"", "magic": b"NOPE" + data[4:], "version": b"GGUF\x09" + data[5:], "cut": data[:900]}
    path.write_bytes(damaged[damage])
    with pytest.raises(TeacherError, match="not a readable GGUF file"):
        read_gguf_header(path)
