"""Opening corpus files: changes, compression and damage."""

import gzip
from pathlib import Path

import pytest
import zstandard
from corpus_reading import line, read, reasons

from logitcask.pipeline.corpus.documents import RawDocument, Rejected
from logitcask.pipeline.corpus.files import find_corpus
from logitcask.pipeline.corpus.streams import open_file
from logitcask.schemas.errors import CorpusError


def test_several_frames_of_zstd_are_read_as_one_stream(tmp_path: Path) -> None:
    frames = [zstandard.compress(line(text=str(n) * 1000)) for n in range(5)]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    assert reasons(read(tmp_path)) == ["ok"] * 5


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_documents_before_damage_are_kept_and_the_rest_is_one_rejection(
    tmp_path: Path, suffix: str, damage: str
) -> None:
    words = [f"{n} " + "".join(chr(97 + (n * k * k) % 26) for k in range(999)) for n in range(1500)]
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor(write_checksum=True).compress}[suffix]
    data = bytearray(pack(b"".join(line(text=word) for word in words)))
    if damage == "cut":
        del data[len(data) * 2 // 3 :]
    else:
        data[len(data) * 2 // 3] ^= 0x55
    (tmp_path / f"a.jsonl{suffix}").write_bytes(data)
    found = read(tmp_path)
    assert reasons(found).count("corrupt_stream") == 1
    assert isinstance(found[-1], Rejected)
    kept = [one.text for one in found if isinstance(one, RawDocument)]
    assert 0 < len(kept) < 1500 or damage == "flip"
    assert kept[: len(kept) // 2] == words[: len(kept) // 2]


def test_a_file_that_changed_since_the_job_started_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("before")
    [file] = find_corpus([str(tmp_path)])
    (tmp_path / "a.txt").write_text("after it")
    with pytest.raises(CorpusError, match=r"a\.txt changed after the job started: 6 bytes"), open_file(file):
        pass
    (tmp_path / "a.txt").unlink()
    with pytest.raises(CorpusError, match=r"a\.txt was removed after the job started"), open_file(file):
        pass


@pytest.mark.parametrize("ending", [bytes(16), b"garbage", zstandard.MAGIC_NUMBER.to_bytes(4, "little") + b"\xff" * 9])
def test_bytes_after_the_last_frame_cost_nothing_before_them(tmp_path: Path, ending: bytes) -> None:
    frames = [zstandard.compress(line(text=str(n))) for n in range(100)]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames) + ending)
    assert reasons(read(tmp_path)) == ["ok"] * 100 + ["corrupt_stream"]


@pytest.mark.parametrize("window_log", [28, 31])
def test_frames_with_long_windows_are_read(tmp_path: Path, window_log: int) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log, hash_log=6, chain_log=6, search_log=1)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = packer.compress(b"".join(line(text=str(n)) for n in range(100))) + packer.flush()
    assert zstandard.get_frame_parameters(data).window_size == 1 << window_log
    (tmp_path / "a.jsonl.zst").write_bytes(data)
    assert reasons(read(tmp_path)) == ["ok"] * 100
