"""Object stores: any key can be read, and markers of directories are no files."""

from collections.abc import Iterator

import pytest
from corpus_reading import read_all
from object_store import environment, s3_server

from logitcask.pipeline.corpus.documents import RawDocument
from logitcask.pipeline.corpus.files import scan_corpus
from logitcask.schemas import storage

pytestmark = pytest.mark.slow
pytest.importorskip("moto")
s3fs = pytest.importorskip("s3fs")

KEYS = ("a.jsonl", "b#1.jsonl", "c?x.jsonl", "d%20.jsonl", "e f.jsonl", "g+h&i=j.jsonl", "k[1]*.jsonl", "ü 漢.jsonl")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server() as address:
        for name, value in environment(address).items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        fs, _ = storage.filesystem("s3://bucket")
        fs.mkdir("bucket")
        yield "s3://bucket"
        s3fs.S3FileSystem.clear_instance_cache()


def test_every_key_is_found_named_and_read(bucket: str) -> None:
    fs, _ = storage.filesystem(bucket)
    for key in KEYS:
        fs.pipe_file(f"bucket/data/{key}", b'{"text":"x"}\n')
    for patterns in ([f"{bucket}/data"], [f"{bucket}/data/*"], [f"{bucket}/data/{key}" for key in KEYS]):
        corpus = scan_corpus(patterns)
        assert [file.name for file in corpus.files] == sorted(KEYS)
        found = read_all(corpus.files)
        assert [one.place.document_id for one in found if isinstance(one, RawDocument)] == [
            f"{key}#1" for key in sorted(KEYS)
        ]


def test_markers_of_directories_are_no_files(bucket: str) -> None:
    fs, _ = storage.filesystem(bucket)
    for key, data in (
        ("data/", b""),
        ("data/out.jsonl/", b""),
        ("data/out.jsonl/part-0.jsonl", b'{"text":"x"}\n'),
        ("data/_SUCCESS", b""),
        ("data/.hidden/b.jsonl", b"{}"),
    ):
        fs.call_s3("put_object", Bucket="bucket", Key=key, Body=data)
    for pattern in (f"{bucket}/data", f"{bucket}/data/", f"{bucket}/data/**/*"):
        corpus = scan_corpus([pattern])
        assert [file.url for file in corpus.files] == [f"{bucket}/data/out.jsonl/part-0.jsonl"]
        assert corpus.num_skipped() == {"hidden": 1, "no file name suffix": 1}
