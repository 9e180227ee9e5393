"""Reading corpus files: every document once, every bad one with its reason, no file ever fatal."""

import gzip
import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from logitcask.pipeline.corpus.documents import RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields
from logitcask.pipeline.corpus.files import CorpusFile, FileSlice, find_corpus
from logitcask.pipeline.corpus.parquet import row_group_bytes
from logitcask.pipeline.corpus.reading import read_documents
from logitcask.schemas.errors import CorpusError
from logitcask.schemas.storage import StoredFile

CHAT = Fields(chat="messages")


def read(path: Path, fields: Fields | None = None) -> list[RawDocument | Rejected]:
    [file] = find_corpus([str(path)])
    whole = FileSlice(file=file, start=0, stop=file.size_bytes, is_whole=True)
    return list(read_documents(whole, fields or Fields()))


def read_one(path: Path, data: bytes, fields: Fields | None = None) -> RawDocument | Rejected:
    path.write_bytes(data)
    [found] = read(path, fields)
    return found


def reasons(found: list[RawDocument | Rejected]) -> list[str]:
    return [one.reason if isinstance(one, Rejected) else "ok" for one in found]


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    found = read_one(tmp_path / "a.md", "\ufeffGrüße\n\nalle".encode())
    assert isinstance(found, RawDocument)
    assert (found.text, found.id) == ("Grüße\n\nalle", "a.md#1")
    assert found.place.source == f"{tmp_path}/a.md#1"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_jsonl_lines_are_documents_whatever_the_compression(tmp_path: Path, suffix: str) -> None:
    data = line(text="one", id="first") + b"\n" + line(text="two", id=7) + json.dumps({"text": "three"}).encode()
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack(data))
    found = read(tmp_path)
    assert [one.text for one in found if isinstance(one, RawDocument)] == ["one", "two", "three"]
    assert [one.id for one in found if isinstance(one, RawDocument)] == ["first", "7", f"a.jsonl{suffix}#4"]
    assert [one.place.row for one in found] == [1, 3, 4]
    assert [one.place.offset_bytes for one in found] == [
        data.index(b"{" + key) for key in (b'"text": "one', b'"text": "two', b'"text": "three')
    ]


def test_several_frames_of_zstd_are_read_as_one_stream(tmp_path: Path) -> None:
    frames = [zstandard.compress(line(text=str(n) * 1000)) for n in range(5)]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    assert reasons(read(tmp_path)) == ["ok"] * 5


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"text": "\xff"}', "undecodable"),
        (b'{"text": "\\ud800"}', "undecodable"),
        (b'{"text": "cut', "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
        (b'["no object"]', "malformed_json"),
        (b'{"body": "x"}', "missing_field"),
        (b'{"text": null}', "wrong_type"),
        (b'{"text": 3}', "wrong_type"),
        (b'{"text": " \\n"}', "empty"),
        (b'{"text": "' + b"x" * 200_000 + b'"}', "too_large"),
    ],
)
def test_a_bad_line_is_rejected_with_its_reason_and_the_others_are_read(
    tmp_path: Path, bad: bytes, reason: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(line(text="before") + bad + b"\n" + line(text="after"))
    found = read(tmp_path, Fields(document_bytes=150_000))
    assert reasons(found) == ["ok", reason, "ok"]
    assert found[1].place.row == 2
    assert found[1].place.offset_bytes == len(line(text="before"))


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        "text",
        ["text"],
        [{"role": "user"}],
        [{"role": "assistant", "content": None}],
        [{"role": "user", "content": "no answer"}],
        [{"role": "assistant", "content": "\ud800"}],
    ],
)
def test_malformed_chat_messages_are_rejected(tmp_path: Path, messages: object) -> None:
    found = read_one(tmp_path / "a.jsonl", line(messages=messages), CHAT)
    assert isinstance(found, Rejected)
    assert found.reason == "malformed_chat"


def test_chat_messages_are_kept_as_they_are(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho", "name": "x"}]
    found = read_one(tmp_path / "a.jsonl", line(messages=messages), CHAT)
    assert isinstance(found, RawDocument)
    assert found.messages == tuple(messages)


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"caf\xe9", "undecodable"), (b"x" * 101, "too_large")])
def test_a_bad_text_file_is_one_rejection(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "bad.txt").write_bytes(data)
    files = find_corpus([str(tmp_path)])
    fields = Fields(document_bytes=100)
    found = [
        one
        for file in files
        for one in read_documents(FileSlice(file=file, start=0, stop=file.size_bytes, is_whole=True), fields)
    ]
    assert reasons(found) == [reason, "ok"]


def test_an_undecodable_text_keeps_its_bytes(tmp_path: Path) -> None:
    found = read_one(tmp_path / "a.txt", b"caf\xe9")
    assert isinstance(found, Rejected)
    assert found.to_json()["raw_base64"] == "Y2Fm6Q=="


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_corrupt_stream_keeps_what_was_read_and_is_one_rejection(tmp_path: Path, suffix: str, damage: str) -> None:
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


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_corrupt_compressed_text_is_one_rejection(tmp_path: Path, suffix: str) -> None:
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    found = read_one(tmp_path / f"a.txt{suffix}", pack(b"some text, some more text" * 100)[:-3])
    assert isinstance(found, Rejected)
    assert found.reason == "corrupt_stream"


def test_byte_ranges_give_every_line_exactly_once(tmp_path: Path) -> None:
    data = b"".join(line(text=f"{n}" * (n % 7 + 1)) for n in range(200))
    (tmp_path / "a.jsonl").write_bytes(data)
    [file] = find_corpus([str(tmp_path)])
    for count in (2, 3, 17, 400):
        bounds = [len(data) * index // count for index in range(count + 1)]
        pieces = [FileSlice(file=file, start=a, stop=b, is_whole=False) for a, b in itertools.pairwise(bounds)]
        found = [one for piece in pieces for one in read_documents(piece, Fields())]
        assert [one.text for one in found if isinstance(one, RawDocument)] == [f"{n}" * (n % 7 + 1) for n in range(200)]
        assert all(one.place.row is None and one.place.source.endswith(f"@{one.place.offset_bytes}") for one in found)


def parquet_file(path: Path, rows: int = 30, group: int = 10) -> None:
    table = pa.table({"text": [f"text {n} " + "x" * 50 for n in range(rows)], "id": list(range(rows))})
    pq.write_table(
        table, path, row_group_size=group, use_dictionary=False, compression="none", write_page_checksum=True
    )


def test_parquet_row_groups_are_read_with_rows_counted_in_the_file(tmp_path: Path) -> None:
    parquet_file(tmp_path / "a.parquet")
    [file] = find_corpus([str(tmp_path)])
    assert len(row_group_bytes(file)) == 3
    found = list(read_documents(FileSlice(file=file, start=1, stop=3, is_whole=False), Fields()))
    assert [one.place.row for one in found] == list(range(11, 31))
    assert [one.id for one in found if isinstance(one, RawDocument)] == [str(n) for n in range(10, 30)]


def test_a_damaged_row_group_is_one_rejection_and_the_others_are_read(tmp_path: Path) -> None:
    parquet_file(tmp_path / "a.parquet")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[data.index(b"text 15 ")] ^= 0xFF
    (tmp_path / "a.parquet").write_bytes(data)
    found = read(tmp_path)
    assert reasons(found) == ["ok"] * 10 + ["corrupt_stream"] + ["ok"] * 10


def test_a_truncated_parquet_file_is_one_rejection(tmp_path: Path) -> None:
    parquet_file(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    [file] = find_corpus([str(tmp_path)])
    assert row_group_bytes(file) == ()
    assert reasons(read(tmp_path)) == ["corrupt_stream"]


def test_parquet_rows_without_the_field_are_rejected_one_by_one(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a", "b"]}), tmp_path / "a.parquet")
    assert reasons(read(tmp_path)) == ["missing_field"] * 2


def test_an_unusable_id_is_replaced_by_the_place(tmp_path: Path) -> None:
    for bad in (True, "", None, "a\nb", "x" * 1000, 1.5):
        found = read_one(tmp_path / "a.jsonl", line(text="x", id=bad))
        assert isinstance(found, RawDocument)
        assert found.id == "a.jsonl#1"


def test_names_are_relative_to_what_holds_all_files_and_each_file_counts_once(tmp_path: Path) -> None:
    for name in ("b/x.jsonl", "a/x.jsonl", "a/deep/y.txt", "a/skipped.pdf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    files = find_corpus([str(tmp_path / "b"), f"{tmp_path}/a/*.jsonl", str(tmp_path)])
    assert [file.name for file in files] == ["a/deep/y.txt", "a/x.jsonl", "b/x.jsonl"]


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nowhere: nothing there"):
        find_corpus([str(tmp_path / "nowhere")])


def test_a_corpus_without_a_supported_file_says_what_is_supported(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(CorpusError, match=r"none of a supported format; give \.txt"):
        find_corpus([str(tmp_path)])


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(CorpusError, match="are empty"):
        find_corpus([str(tmp_path)])


def test_a_file_that_changed_since_the_plan_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("before")
    [file] = find_corpus([str(tmp_path)])
    (tmp_path / "a.txt").write_text("after it")
    with pytest.raises(CorpusError, match=r"a\.txt changed after the job was planned: 6 bytes"):
        list(read_documents(FileSlice(file=file, start=0, stop=6, is_whole=True), Fields()))
    (tmp_path / "a.txt").unlink()
    with pytest.raises(CorpusError, match=r"a\.txt was there when the job was planned and is gone"):
        list(read_documents(FileSlice(file=file, start=0, stop=6, is_whole=True), Fields()))


def test_credentials_stay_out_of_records_and_fingerprints() -> None:
    url = "s3://key:secret@bucket/a.txt?token=secret"
    file = CorpusFile(url=url, name="a.txt", format="text", compression=None, size_bytes=1, etag="e")
    assert "secret" not in file.redacted_url
    assert "secret" not in str(file.identity())


def test_files_that_only_credentials_tell_apart_are_refused(monkeypatch):
    found = [StoredFile(url=f"https://host/get.jsonl?id={number}", size_bytes=1, etag="e") for number in (1, 2)]
    monkeypatch.setattr("logitcask.pipeline.corpus.files.storage.expand", lambda pattern: found)
    with pytest.raises(CorpusError, match=r"several files are https://host/get\.jsonl once"):
        find_corpus(["https://host/"])
