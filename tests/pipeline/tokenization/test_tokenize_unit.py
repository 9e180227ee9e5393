"""Tokenizing units: each document is in one shard or rejected, and every attempt writes the same bytes."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizing import make_spec, make_unit

from logitcask.pipeline.corpus.documents import Place, RawDocument, Rejected
from logitcask.pipeline.tokenization.tokenize_unit import is_held_out, tokenize_document, tokenize_unit
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.schemas.dataset.token_unit_record import TokenUnitRecord
from logitcask.schemas.errors import FingerprintMismatchError, TokenizerError
from logitcask.schemas.format.metadata import TokenizerInfo
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.targets import Kind, Windows
from logitcask.teacher.text.chat import RewrittenChatError
from logitcask.teacher.text.chat_template import UnstableTemplateError
from logitcask.teacher.text.tokenizers import load_tokenizer

PLACE = Place(file_name="a", url="/a", row=1, offset_bytes=0)


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


def test_an_attempt_after_an_interruption_writes_the_same_files(
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


def test_bad_documents_are_rejected_with_reason_row_and_raw_bytes(
    tmp_path: Path, sentencepiece_model: Path, corpus: Path
) -> None:
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


def test_duplicates_are_in_the_same_split(tmp_path: Path, sentencepiece_model: Path, corpus: Path) -> None:
    (corpus / "b.jsonl").write_bytes((corpus / "a.jsonl").read_bytes())
    out = tmp_path / "out"
    unit = tokenize_unit(make_unit(corpus), make_spec(out, sentencepiece_model), Heartbeats())
    ids = {
        split: [part.id for windows in windows_of(out, unit, split) for part in windows.parts if part.offset == 0]
        for split in ("train", "held-out")
    }
    assert set(ids["train"]).isdisjoint(ids["held-out"])
    assert 0.1 < len(ids["held-out"]) / 400 < 0.3


def test_a_larger_held_out_share_contains_the_smaller_one() -> None:
    documents = [RawDocument(id="d", place=PLACE, text=str(n)) for n in range(10_000)]
    held_out = [sum(is_held_out(document, share) for document in documents) for share in (0.0, 0.01, 0.1)]
    assert held_out[0] == 0
    assert held_out[1] == pytest.approx(100, abs=40)
    assert held_out[2] == pytest.approx(1000, abs=120)
    assert all(is_held_out(d, 0.1) for d in documents if is_held_out(d, 0.01))


class ChatTokenizer:
    """An exact fake: an id for the role (user 1, assistant 2), then one id for each character, its code point."""

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

    def split_chat(self, messages: list[dict]) -> list[tuple[list[int], np.ndarray]]:
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        return [ChatTokenizer.apply_chat(self, messages[: i + 1]) for i in answers]


class RewritingTokenizer(ChatTokenizer):
    """A tokenizer whose template rewrites earlier turns."""

    def apply_chat(self, messages: list[dict]) -> tuple[list[int], np.ndarray]:
        if len(messages) > 2:
            raise RewrittenChatError("differs")
        return super().apply_chat(messages)


class UnstableTokenizer(ChatTokenizer):
    def apply_chat(self, messages: list[dict]) -> tuple[list[int], np.ndarray]:
        raise UnstableTemplateError("differs each time")


def chat(*messages: tuple[str, str]) -> RawDocument:
    return RawDocument(
        id="d", place=PLACE, messages=tuple({"role": role, "content": content} for role, content in messages)
    )


def test_only_rows_that_predict_an_assistant_token_are_trained() -> None:
    documents = tokenize_document(
        chat(("user", "ab"), ("assistant", "cd"), ("user", "e")),
        ChatTokenizer(),
        vocab_size=200,  # pyright: ignore
    )
    assert not isinstance(documents, Rejected)
    [document] = documents
    assert document.ids.tolist() == [1, 97, 98, 2, 99, 100, 1, 101]
    p, t = Kind.PROMPT, Kind.TRAIN
    assert document.kinds is not None
    assert document.kinds.tolist() == [p, p, p, t, t, p, p, p]


TWO_ANSWERS = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))


@pytest.mark.parametrize(
    ("tokenizer", "chat_split", "ids"),
    [
        (ChatTokenizer(), "auto", ["d"]),
        (ChatTokenizer(), "always", ["d/answer-1", "d/answer-2"]),
        (RewritingTokenizer(), "auto", ["d/answer-1", "d/answer-2"]),
        (RewritingTokenizer(), "never", None),
    ],
)
def test_a_chat_is_split_by_answer_where_it_must_be(tokenizer, chat_split, ids) -> None:
    found = tokenize_document(chat(*TWO_ANSWERS), tokenizer, vocab_size=200, chat_split=chat_split)
    if ids is None:
        assert isinstance(found, Rejected)
    else:
        assert not isinstance(found, Rejected)
        assert [document.id for document in found] == ids


def test_a_template_that_changes_its_mind_stops_the_job() -> None:
    with pytest.raises(UnstableTemplateError):
        tokenize_document(chat(*TWO_ANSWERS), UnstableTokenizer(), vocab_size=200)  # pyright: ignore


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (RawDocument(id="d", place=PLACE, text="∅∅"), "no_tokens"),
        (RawDocument(id="d", place=PLACE, text="aé"), "id_beyond_vocabulary"),
        (chat(("judge", "a"), ("assistant", "b")), "malformed_chat"),
    ],
)
def test_a_document_that_cannot_be_tokenized_is_rejected(document: RawDocument, reason: str) -> None:
    found = tokenize_document(document, ChatTokenizer(), vocab_size=200)  # pyright: ignore[reportArgumentType]
    assert isinstance(found, Rejected)
    assert found.reason == reason


def test_another_tokenizer_on_a_worker_is_refused(tmp_path: Path, sentencepiece_model: Path, corpus: Path) -> None:
    spec = make_spec(tmp_path / "out", sentencepiece_model, tokenizer=ChatTokenizer.info)
    with pytest.raises(FingerprintMismatchError, match="give all workers the same files"):
        tokenize_unit(make_unit(corpus), spec, Heartbeats())
