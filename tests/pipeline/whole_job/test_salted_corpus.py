"""A corpus with one percent of each kind of bad document: none is lost, and repaired ones can be appended."""

import base64
import dataclasses
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.job import annotate
from logitcask.schemas.maintenance.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")]

NUM_DOCUMENTS = 1000
ONE_PERCENT = NUM_DOCUMENTS // 100
DOCUMENT_BYTES = 400
SALT = {
    "undecodable bytes": (b'{"text": "caf\xe9 au lait"}', "undecodable"),
    "an unpaired surrogate": (rb'{"text": "half a pair \ud800 alone"}', "undecodable"),
    "a torn line": (b'{"text": "a line that was torn', "malformed_json"),
    "no object": (b'["a", "list"]', "malformed_json"),
    "no such field": (b'{"body": "text under another name"}', "missing_field"),
    "null": (b'{"text": null}', "wrong_type"),
    "a number": (b'{"text": 7}', "wrong_type"),
    "nothing": (b'{"text": ""}', "empty"),
    "white space": (rb'{"text": " \n "}', "empty"),
    "too long": (b'{"text": "' + b"long " * DOCUMENT_BYTES + b'"}', "too_large"),
}


def salted(english: str) -> bytes:
    """Lines in a fixed random order; one percent are of each bad kind."""
    good = [{"text": english[n * 60 : n * 60 + 60] + "."} for n in range(NUM_DOCUMENTS - len(SALT) * ONE_PERCENT)]
    lines = [json.dumps(document).encode() for document in good]
    lines += [line for line, _ in SALT.values()] * ONE_PERCENT
    random.Random(0).shuffle(lines)
    return b"\n".join(lines) + b"\n"


def repair(rejected: dict) -> str | None:
    """A repaired rejected line, as the README describes; None if it cannot be repaired."""
    if "raw_base64" in rejected:
        return base64.b64decode(rejected["raw_base64"]).decode("latin-1")
    if rejected["detail"].startswith("Unterminated string"):
        return rejected["raw"] + '"}'
    if rejected["reason"] == "missing_field":
        return rejected["raw"].replace('"body"', '"text"')
    return None


def test_bad_documents_are_rejected_and_repaired_ones_can_be_appended(
    tmp_path: Path, tiny_teacher: Path, english: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(salted(english))
    config = AnnotateConfig(
        corpus=(str(tmp_path / "a.jsonl"),),
        teacher=str(tiny_teacher),
        out=str(tmp_path / "out"),
        device="cpu",
        threads=1,
        window=128,
        shard_tokens=8192,
        document_bytes=DOCUMENT_BYTES,
    )
    snapshot = annotate(config, quiet=True).snapshot
    expected = Counter(reason for _, reason in SALT.values())
    assert snapshot.rejected == {reason: count * ONE_PERCENT for reason, count in sorted(expected.items())}
    assert snapshot.num_documents_in == NUM_DOCUMENTS
    num_good = snapshot.total().num_documents
    assert num_good == NUM_DOCUMENTS - snapshot.num_rejected == NUM_DOCUMENTS - len(SALT) * ONE_PERCENT

    texts = [file.read_text() for file in (tmp_path / "out/rejected").iterdir()]
    rejected = [json.loads(line) for text in texts for line in text.splitlines()]
    assert Counter(line["reason"] for line in rejected) == snapshot.rejected
    assert len({(line["source"], line["offset_bytes"]) for line in rejected}) == len(rejected)
    repaired = [line for line in map(repair, rejected) if line is not None]
    assert len(repaired) == 3 * ONE_PERCENT
    (tmp_path / "repaired.jsonl").write_text("\n".join(repaired))
    more = dataclasses.replace(config, corpus=(str(tmp_path / "repaired.jsonl"),), append=True)
    whole = annotate(more, quiet=True).snapshot
    assert whole.complete
    assert whole.total().num_documents == num_good + 3 * ONE_PERCENT
    assert verify(str(tmp_path / "out")).faults == ()
