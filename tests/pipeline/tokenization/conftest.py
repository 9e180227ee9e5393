"""Fixtures of the tokenization tests."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def corpus(tmp_path: Path, english: str) -> Path:
    """200 documents of a few sentences."""
    directory = tmp_path / "corpus"
    directory.mkdir()
    texts = [english[start : start + 50 + start % 400] for start in range(0, 80_000, 400)]
    lines = [json.dumps({"text": text, "id": f"d{n}"}) for n, text in enumerate(texts)]
    (directory / "a.jsonl").write_text("\n".join(lines))
    return directory
