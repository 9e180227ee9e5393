"""The whole way on an object store that stumbles: annotate, inspect, verify, train, with the targets of a local run."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import Fault, environment, failing_proxy, s3_server

from logitcask.schemas import storage
from logitcask.schemas.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
pytest.importorskip("moto")
s3fs = pytest.importorskip("s3fs")

BUCKET = "s3://a-bucket"
SETTINGS = ["--window", "64", "--shard-tokens", "512", "--batch-tokens", "256", "--held-out", "0.2", "--threads", "1"]


def stumble(request: str, before: int) -> Fault | None:
    """One request in eight fails when it is first made, in one of three ways."""
    number = zlib.crc32(request.encode())
    faults: tuple[Fault, ...] = ("503", "drop", "truncate")
    return faults[number // 8 % 3] if number % 8 == 0 and before == 0 else None


@pytest.fixture
def stumbles(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An S3 bucket behind a proxy; gives the requests that failed."""
    failed: list[str] = []

    def plan(request: str, before: int) -> Fault | None:
        fault = stumble(request, before)
        if fault is not None:
            failed.append(f"{fault} {request}")
        return fault

    with s3_server() as server, failing_proxy(server, plan) as proxy:
        for name, value in (environment(proxy) | {"AWS_MAX_ATTEMPTS": "3"}).items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("a-bucket")
        yield failed
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_dataset_is_made_checked_and_trained_on_in_an_object_store(
    stumbles: list[str],
    english: str,
    tiny_teacher: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = "\n".join(json.dumps({"text": english[start : start + 300]}) for start in range(0, 6000, 300))
    storage.create(f"{BUCKET}/corpus/a.jsonl", lines.encode())
    (tmp_path / "a.jsonl").write_text(lines)
    teacher = ["--teacher", str(tiny_teacher), *SETTINGS]
    assert main(["annotate", f"{BUCKET}/corpus", *teacher, "--out", f"{BUCKET}/out"]) == 0
    assert main(["annotate", str(tmp_path / "a.jsonl"), *teacher, "--out", str(tmp_path / "out")]) == 0
    assert stored(f"{BUCKET}/out") == stored(str(tmp_path / "out"))
    assert main(["annotate", f"{BUCKET}/corpus", *teacher, "--out", f"{BUCKET}/out"]) == 0
    assert "nothing to do: the dataset is already finished" in capsys.readouterr().out
    assert main(["inspect", f"{BUCKET}/out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] is True
    assert main(["verify", f"{BUCKET}/out"]) == 0
    student = str(tmp_path / "student")
    assert main(["student", "init", "--teacher", str(tiny_teacher), "--keep-layers", "0,3", "--out", student]) == 0
    run = ["--student", student, "--out", str(tmp_path / "run"), "--steps", "2", "--batch-windows", "2"]
    assert main(["train", f"{BUCKET}/out", *run]) == 0
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()
    assert len(stumbles) > 3


def stored(out: str) -> dict[str, list[float]]:
    """Log-probabilities by shard: the documents' sources, and so the bytes, carry the store's name."""
    from logitcask.schemas.dataset.snapshot import load_snapshot
    from logitcask.schemas.format.reader import ShardReader

    snapshot = load_snapshot(out)
    found = {}
    for entry in snapshot.shards():
        with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
            block = reader.read()
            assert block.targets is not None
            found[f"{entry.split} {block.windows.content_hashes()}"] = block.targets.head_log_probs.tolist()
    return found
