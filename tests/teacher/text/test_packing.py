"""Packing as properties: no token is lost, repeated or misplaced; and batches of windows."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitcask.schemas.errors import CorpusError, UsageError
from logitcask.schemas.format.ragged import offsets_from_lengths
from logitcask.schemas.format.targets import Kind, Windows
from logitcask.teacher.text.packing import Document, batches, full_windows, kinds_of_chat, pack_documents

BOS, EOS = 1000, 1001


def documents_of(lengths: list[int]) -> list[Document]:
    """Documents without a token in common, so that a token shows its document."""
    starts = np.cumsum([0, *lengths])
    return [
        Document(id=f"d{i}", source=f"corpus#{i}", ids=10_000 + np.arange(starts[i], starts[i + 1]))
        for i in range(len(lengths))
    ]


def rows_by_part(windows: Windows) -> list[tuple[str, int, np.ndarray, np.ndarray]]:
    """(document id, offset, tokens, kinds) of each part."""
    return [
        (part.id, part.offset, windows.token[windows.part == i], windows.kind[windows.part == i])
        for i, part in enumerate(windows.parts)
    ]


packings = st.fixed_dictionaries(
    {
        "window_tokens": st.integers(8, 40),
        "overlap_tokens": st.integers(0, 5),
        "bos_id": st.sampled_from([None, BOS]),
        "eos_id": st.sampled_from([None, EOS]),
        "max_open": st.integers(1, 4),
    }
)
document_lengths = st.lists(st.integers(1, 90), max_size=12)


@settings(deadline=None)
@given(lengths=document_lengths, packing=packings)
def test_every_token_is_in_order_in_exactly_one_row_that_is_not_context(lengths, packing):
    documents = documents_of(lengths)
    found = {document.id: {} for document in documents}
    for windows in pack_documents(documents, **packing):
        for name, offset, token, kind in rows_by_part(windows):
            body, kind = (token[1:], kind[1:]) if packing["bos_id"] is not None else (token, kind)
            for place, (value, row_kind) in enumerate(zip(body, kind, strict=True), start=offset):
                if row_kind != Kind.CONTEXT:
                    assert place not in found[name], "a token twice"
                    found[name][place] = value
    for document in documents:
        expected = [*document.ids, EOS] if packing["eos_id"] is not None else [*document.ids]
        assert [found[document.id][place] for place in sorted(found[document.id])] == expected
        assert sorted(found[document.id]) == list(range(len(expected)))


@settings(deadline=None)
@given(lengths=document_lengths, packing=packings)
def test_every_part_is_bos_and_then_the_document_from_its_offset(lengths, packing):
    documents = {document.id: document for document in documents_of(lengths)}
    for windows in pack_documents(documents.values(), **packing):
        assert 0 < windows.num_positions <= packing["window_tokens"]
        assert windows.num_windows == 1
        for name, offset, token, _ in rows_by_part(windows):
            if packing["bos_id"] is not None:
                assert token[0] == BOS
                token = token[1:]
            assert BOS not in token
            ids = documents[name].ids
            if EOS in token:
                assert token[-1] == EOS
                assert offset + len(token) - 1 == len(ids)
                token = token[:-1]
            assert len(token), "a part of BOS and EOS alone"
            np.testing.assert_array_equal(token, ids[offset : offset + len(token)])


@settings(deadline=None)
@given(lengths=document_lengths, packing=packings)
def test_overlap_rows_are_context_and_only_after_a_cut(lengths, packing):
    for windows in pack_documents(documents_of(lengths), **packing):
        for _, offset, _, kind in rows_by_part(windows):
            num_context = packing["overlap_tokens"] + (packing["bos_id"] is not None)
            if offset == 0 or not packing["overlap_tokens"]:
                num_context = 0
            assert (kind[:num_context] == Kind.CONTEXT).all()
            assert (kind[num_context:] == Kind.TRAIN).all()


@settings(deadline=None)
@given(lengths=document_lengths, packing=packings)
def test_documents_that_fit_are_not_cut(lengths, packing):
    extra = (packing["bos_id"] is not None) + (packing["eos_id"] is not None)
    num_parts = {f"d{i}": 0 for i in range(len(lengths))}
    for windows in pack_documents(documents_of(lengths), **packing):
        for part in windows.parts:
            num_parts[part.id] += 1
    for i, length in enumerate(lengths):
        if length + extra <= packing["window_tokens"]:
            assert num_parts[f"d{i}"] == 1


def test_the_same_documents_give_the_same_windows():
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 200, size=200)]
    hashes = [
        [w.content_hashes() for w in pack_documents(documents_of(lengths), 64, bos_id=BOS, max_open=8)]
        for _ in range(2)
    ]
    assert hashes[0] == hashes[1]


def test_windows_of_short_documents_are_nearly_full():
    lengths = [int(n) for n in np.random.default_rng(0).integers(10, 200, size=1000)]
    windows = pack_documents(documents_of(lengths), 512, bos_id=BOS, eos_id=EOS, max_open=16)
    assert np.mean([w.num_positions / 512 for w in windows]) > 0.97


def test_packing_streams():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Document(id=str(taken), source="s", ids=np.arange(30))

    windows = pack_documents(endless(), 64, max_open=3)
    for _ in range(10):
        next(windows)
    assert taken <= 2 * (10 + 3)


def test_a_huge_document_is_cut_without_a_copy_of_the_whole():
    ids = np.arange(1_000_000, dtype=np.int32)
    first = next(pack_documents([Document(id="d", source="s", ids=ids)], 512, bos_id=BOS))
    assert first.num_positions == 512
    assert Document(id="d", source="s", ids=ids).ids is ids


def test_an_eos_at_the_end_of_a_document_is_not_doubled():
    document = Document(id="d", source="s", ids=np.array([5, 6, EOS]))
    (windows,) = pack_documents([document], 8, bos_id=BOS, eos_id=EOS)
    assert windows.token.tolist() == [BOS, 5, 6, EOS]


def test_rows_of_a_chat_train_exactly_where_they_predict_the_assistant():
    is_assistant = np.array([0, 0, 1, 1, 1, 0, 0, 1, 1, 0], dtype=bool)
    document = Document(id="d", source="s", ids=np.arange(10), kinds=kinds_of_chat(is_assistant))
    (windows,) = pack_documents([document], 16, bos_id=BOS, eos_id=EOS)
    predicts_assistant = [*is_assistant, False, False]
    expected = [Kind.TRAIN if predicted else Kind.PROMPT for predicted in [*predicts_assistant]]
    assert windows.token.tolist() == [BOS, *range(10), EOS]
    assert windows.kind.tolist() == expected


def test_where_a_chat_is_cut_bos_replaces_the_row_before():
    is_assistant = np.zeros(10, dtype=bool)
    is_assistant[6:] = True
    document = Document(id="d", source="s", ids=np.arange(10), kinds=kinds_of_chat(is_assistant))
    first, second = pack_documents([document], 7, bos_id=BOS)
    assert first.kind.tolist() == [Kind.PROMPT] * 6 + [Kind.TRAIN]
    assert second.token.tolist() == [BOS, 6, 7, 8, 9]
    assert second.kind.tolist() == [Kind.TRAIN] * 4 + [Kind.PROMPT]


def test_a_document_without_tokens_is_refused_by_name():
    with pytest.raises(CorpusError, match=r"corpus#3: document 'd' has no tokens"):
        Document(id="d", source="corpus#3", ids=np.array([], dtype=np.int32))


def test_another_number_of_kinds_than_of_tokens_is_refused():
    with pytest.raises(CorpusError, match="2 tokens but 3 kinds"):
        Document(id="d", source="s", ids=np.array([1, 2]), kinds=np.zeros(3))


@pytest.mark.parametrize(("window", "overlap", "max_open"), [(3, 1, 1), (2, 0, 1), (8, -1, 1), (8, 0, 0)])
def test_windows_that_cannot_hold_a_part_are_bad_usage(window, overlap, max_open):
    with pytest.raises(UsageError):
        list(pack_documents([], window, overlap_tokens=overlap, bos_id=BOS, max_open=max_open))


@given(st.lists(st.integers(1, 64), max_size=40), st.integers(1, 200))
def test_every_window_is_in_one_batch_and_padded_batches_fit(lengths, batch_tokens):
    found = list(batches(offsets_from_lengths(lengths), batch_tokens))
    assert [index for start, stop in found for index in range(start, stop)] == list(range(len(lengths)))
    for start, stop in found:
        assert stop - start == 1 or max(lengths[start:stop]) * (stop - start) <= batch_tokens
    for (start, stop), _ in itertools.pairwise(found):
        assert max(lengths[start : stop + 1]) * (stop + 1 - start) > batch_tokens


def test_full_windows_are_one_part_each():
    windows = full_windows(np.arange(12, dtype=np.int32), 4)
    assert windows.window_offsets.tolist() == [0, 4, 8, 12]
    assert windows.position_ids().tolist() == [0, 1, 2, 3] * 3
    assert windows.has_target().all()
    assert len({part.id for part in windows.parts}) == 3
