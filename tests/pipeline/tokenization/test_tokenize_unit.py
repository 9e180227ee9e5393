"""Tokenising units: every document in a shard or in rejected/, exactly once, byte-identical whenever it is done."""

import json
from pathlib import Path

import numpy as np
import pytest

from logitcask.pipeline.corpus.documents import Place, RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields
from logitcask.pipeline.corpus.files import find_corpus
from logitcask.pipeline.tokenization.token_shards import TokenSpec
from logitcask.pipeline.tokenization.tokenize_unit import is_held_out, tokenize_document, tokenize_unit
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.pipeline.units.token_unit_record import TokenUnitRecord, read_token_unit_record, token_unit_record_path
from logitcask.pipeline.units.token_units import TokenUnit, make_token_units
from logitcask.schemas.errors import CorruptShardError, FingerprintMismatchError, TokenizerError
from logitcask.schemas.format.metadata import TokenizerInfo
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.targets import Kind, Windows
from logitcask.teacher.text.tokenizers import load_tokenizer

PLACE = Place(file_name="a", url="/a", row=1, offset_bytes=0)


def make_spec(out: Path, model: Path, **changes: object) -> TokenSpec:
    settings = {
        "out": str(out),
        "tokenizer_reference": str(model),
        "tokenizer": load_tokenizer(model).info,
        "fields": Fields(document_bytes=50_000),
        "window_tokens": 64,
        "overlap_tokens": 0,
        "held_out": 0.2,
        "shard_tokens": 512,
        "vocab_size": 1000,
        "corpus_license": None,
    }
    return TokenSpec(**{**settings, **changes})  # pyright: ignore[reportArgumentType]


def make_unit(corpus: Path) -> TokenUnit:
    [unit] = make_token_units(find_corpus([str(corpus)]), "settings", lambda _: [])
    return unit


@pytest.fixture
def corpus(tmp_path: Path, english: str) -> Path:
    """200 documents of a few sentences."""
    directory = tmp_path / "corpus"
    directory.mkdir()
    texts = [english[start : start + 50 + start % 400] for start in range(0, 80_000, 400)]
    lines = [json.dumps({"text": text, "id": f"d{n}"}) for n, text in enumerate(texts)]
    (directory / "a.jsonl").write_text("\n".join(lines))
    return directory


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def windows_of(out: Path, unit: TokenUnitRecord, split: str) -> list[Windows]:
    found = []
    for shard in unit.shards:
        if shard.split == split:
            url = f"{out}/tokens/{split}/{shard.name}.parquet"
            with ShardReader(url, footer_digest=shard.footer_digest) as reader:
                found.append(reader.read().windows)
    return found


def test_every_document_is_in_a_shard_with_all_its_tokens(
    tmp_path: Path, sentencepiece_model: Path, corpus: Path
) -> None:
    out, tokenizer = tmp_path / "out", load_tokenizer(sentencepiece_model)
    spec = make_spec(out, sentencepiece_model)
    unit = tokenize_unit(make_unit(corpus), spec, Heartbeats())
    texts = {record["id"]: record["text"] for record in map(json.loads, (corpus / "a.jsonl").read_text().splitlines())}
    found: dict[str, dict[int, list[int]]] = {}
    for split in ("train", "held-out"):
        for windows in windows_of(out, unit, split):
            for index, part in enumerate(windows.parts):
                found.setdefault(part.id, {})[part.offset] = windows.token[windows.part == index].tolist()
    bos, eos = spec.tokenizer.bos_id, spec.tokenizer.eos_id
    assert found.keys() == texts.keys()
    for name, parts in found.items():
        assert all(tokens[0] == bos for tokens in parts.values())
        joined = [token for offset in sorted(parts) for token in parts[offset][1:]]
        assert joined == [*tokenizer.encode(texts[name]), eos]
    assert unit.num_documents == 200 == sum(shard.num_documents for shard in unit.shards)


def test_shards_hold_no_more_positions_than_asked(tmp_path: Path, sentencepiece_model: Path, corpus: Path) -> None:
    (corpus / "long.txt").write_text((corpus / "a.jsonl").read_text()[:30_000])
    unit = tokenize_unit(make_unit(corpus), make_spec(tmp_path / "out", sentencepiece_model), Heartbeats())
    train = [shard.num_positions for shard in unit.shards if shard.split == "train"]
    assert max(train) <= 512
    assert min(train[:-1]) > 512 - 64


def test_an_attempt_after_any_interruption_gives_the_same_files(
    tmp_path: Path, sentencepiece_model: Path, corpus: Path
) -> None:
    (corpus / "b.jsonl").write_text('{"text": 1}\nnonsense\n')
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out in (whole, cut):
        tokenize_unit(make_unit(corpus), make_spec(out, sentencepiece_model), Heartbeats())
    assert files(whole) == files(cut)
    for index, name in enumerate(files(cut)):
        if index % 3 or "units" in name:
            (cut / name).unlink()
    tokenize_unit(make_unit(corpus), make_spec(cut, sentencepiece_model), Heartbeats())
    assert {k: v for k, v in files(cut).items() if k.endswith((".parquet", ".jsonl"))} == {
        k: v for k, v in files(whole).items() if k.endswith((".parquet", ".jsonl"))
    }
    assert files(cut).keys() == files(whole).keys()


def test_in_equals_annotated_plus_rejected_per_reason(tmp_path: Path, sentencepiece_model: Path, corpus: Path) -> None:
    salt = [
        b'{"text": "\xff"}',
        b"{",
        b'{"body": "x"}',
        b'{"text": 1}',
        b'{"text": " "}',
        b'{"text": "' + b"x" * 60_000 + b'"}',
    ]
    lines = (corpus / "a.jsonl").read_bytes().splitlines()
    for index in range(60):
        lines.insert(3 * index, salt[index % len(salt)])
    (corpus / "a.jsonl").write_bytes(b"\n".join(lines))
    out = tmp_path / "out"
    unit = tokenize_unit(make_unit(corpus), make_spec(out, sentencepiece_model), Heartbeats())
    reasons = ("undecodable", "malformed_json", "missing_field", "wrong_type", "empty", "too_large")
    assert unit.rejected == dict.fromkeys(reasons, 10)
    assert unit.num_documents == 260
    assert sum(shard.num_documents for shard in unit.shards) == 200
    [rejected] = [data for name, data in files(out).items() if name.startswith("rejected/")]
    kept = [json.loads(line) for line in rejected.splitlines()]
    assert [line["row"] for line in kept] == [3 * index + 1 for index in range(60)]
    assert kept[1]["raw"] == "{"
    assert lines[kept[7]["row"] - 1].decode() == kept[7]["raw"]
    assert set(kept[2]) == {"source", "row", "offset_bytes", "reason", "detail", "raw"}


def test_duplicates_never_straddle_the_splits(tmp_path: Path, sentencepiece_model: Path, corpus: Path) -> None:
    (corpus / "b.jsonl").write_bytes((corpus / "a.jsonl").read_bytes())
    out = tmp_path / "out"
    unit = tokenize_unit(make_unit(corpus), make_spec(out, sentencepiece_model), Heartbeats())
    ids = {
        split: [part.id for windows in windows_of(out, unit, split) for part in windows.parts if part.offset == 0]
        for split in ("train", "held-out")
    }
    assert set(ids["train"]).isdisjoint(ids["held-out"])
    assert 0.1 < len(ids["held-out"]) / 400 < 0.3


def test_the_held_out_share_is_met_and_grows_monotonically() -> None:
    documents = [RawDocument(id="d", place=PLACE, text=str(n)) for n in range(10_000)]
    held_out = [sum(is_held_out(document, share) for document in documents) for share in (0.0, 0.01, 0.1)]
    assert held_out[0] == 0
    assert held_out[1] == pytest.approx(100, abs=40)
    assert held_out[2] == pytest.approx(1000, abs=120)
    assert all(is_held_out(d, 0.1) for d in documents if is_held_out(d, 0.01))


class ChatTokenizer:
    """An exact fake: one id a character, the role first; user 1, assistant 2; ids of text are code points."""

    info = TokenizerInfo(
        name="f", fingerprint="f", vocabulary_fingerprint="f", vocab_size=200, bos_id=None, eos_id=None
    )

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text if character != "∅"]

    def apply_chat(self, messages: list[dict]) -> tuple[list[int], np.ndarray]:
        ids, mask = [], []
        for message in messages:
            if message["role"] not in ("user", "assistant"):
                raise TokenizerError(f"the template has no role {message['role']!r}")
            is_assistant = message["role"] == "assistant"
            ids += [2 if is_assistant else 1, *map(ord, message["content"])]
            mask += [False, *[is_assistant] * len(message["content"])]
        return ids, np.array(mask)


def chat(*messages: tuple[str, str]) -> RawDocument:
    return RawDocument(
        id="d", place=PLACE, messages=tuple({"role": role, "content": content} for role, content in messages)
    )


def test_exactly_the_rows_that_predict_an_assistant_token_are_trained() -> None:
    document = tokenize_document(
        chat(("user", "ab"), ("assistant", "cd"), ("user", "e")),
        ChatTokenizer(),
        vocab_size=200,  # pyright: ignore
    )
    assert not isinstance(document, Rejected)
    assert document.ids.tolist() == [1, 97, 98, 2, 99, 100, 1, 101]
    p, t = Kind.PROMPT, Kind.TRAIN
    assert document.kinds is not None
    assert document.kinds.tolist() == [p, p, p, t, t, p, p, p]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (RawDocument(id="d", place=PLACE, text="∅∅"), "no_tokens"),
        (RawDocument(id="d", place=PLACE, text="aé"), "id_beyond_vocabulary"),
        (chat(("judge", "a"), ("assistant", "b")), "malformed_chat"),
    ],
)
def test_a_document_that_cannot_be_tokenised_is_rejected(document: RawDocument, reason: str) -> None:
    found = tokenize_document(document, ChatTokenizer(), vocab_size=200)  # pyright: ignore[reportArgumentType]
    assert isinstance(found, Rejected)
    assert found.reason == reason


def test_another_tokenizer_on_a_worker_is_refused(tmp_path: Path, sentencepiece_model: Path, corpus: Path) -> None:
    spec = make_spec(tmp_path / "out", sentencepiece_model, tokenizer=ChatTokenizer.info)
    with pytest.raises(FingerprintMismatchError, match="give all workers the same files"):
        tokenize_unit(make_unit(corpus), spec, Heartbeats())


def test_a_damaged_unit_record_is_named(tmp_path: Path) -> None:
    url = tmp_path / token_unit_record_path("u")
    url.parent.mkdir(parents=True)
    url.write_text('{"name": "u"}')
    with pytest.raises(CorruptShardError, match=r"u\.json: not a unit's record"):
        read_token_unit_record(str(tmp_path), "u")
