"""What a trainer learns from a snapshot that leaves something out."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logitcask.schemas.dataset.identity import CorpusInfo, Identity
from logitcask.schemas.dataset.rules import Rule
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.dataset.snapshot_writer import Draft, publish
from logitcask.schemas.dataset.split_summary import sum_summaries
from logitcask.schemas.errors import FingerprintMismatchError
from logitcask.schemas.format.targets import Windows
from logitcask.schemas.maintenance.compact import compact
from logitcask.schemas.maintenance.merge import merge
from logitcask.schemas.maintenance.select_forget import forget_documents, select_rows
from logitcask.student.data.collator import collate
from logitcask.student.data.dataset import SoftTargetDataset

# Those that begin each shard; there are at least as many as windows.
DOCUMENTS = [f"train-{shard}-{part}" for shard in (0, 1) for part in range(5)]


@pytest.fixture
def copy(dataset_url: str, tmp_path: Path) -> str:
    return str(shutil.copytree(dataset_url, tmp_path / "copy"))


def documents_of(windows: Windows) -> set[str]:
    return {windows.parts[part].id for part in windows.part}


def learned(windows: SoftTargetDataset) -> list[tuple]:
    """Each window as (document, tokens so far, next token, stored loss, head) of every row that has a target."""
    found = []
    for index in range(len(windows)):
        sample = windows[index]
        part_ids = [sample.windows.parts[part].id for part in sample.windows.part]
        starts = np.arange(sample.windows.num_positions) - sample.windows.position_ids()
        rows = []
        for row in np.flatnonzero(sample.targets.has_target()):
            head = slice(sample.targets.head_offsets[row], sample.targets.head_offsets[row + 1])
            rows.append(
                (
                    part_ids[row],
                    tuple(sample.windows.token[starts[row] : row + 1].tolist()),
                    int(sample.windows.next_token()[row]),
                    float(np.nan_to_num(sample.targets.log_next[row], nan=99.0)),
                    tuple(sample.targets.head_ids[head].tolist()),
                )
            )
        found.append(tuple(rows))
    return found


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sets(st.sampled_from(DOCUMENTS), min_size=1, max_size=8),
    st.tuples(st.floats(0, 3), st.floats(4, 9)),
)
def test_exactly_the_selected_rows_are_learned(dataset_url, tmp_path_factory, forgotten, loss_range):
    """Rows of other documents with a loss in the range, each with all tokens of its part before it."""
    out = str(shutil.copytree(dataset_url, tmp_path_factory.mktemp("property") / "copy"))
    low, high = (float(np.float32(bound)) for bound in loss_range)
    whole = SoftTargetDataset(out)
    before, documents = learned(whole), [documents_of(whole[index].windows) for index in range(len(whole))]
    select_rows(out, Rule(min_loss=low, max_loss=high))
    forget_documents(out, sorted(forgotten))
    expected = [tuple(row for row in window if row[0] not in forgotten and low <= -row[3] <= high) for window in before]
    gone = [ids <= forgotten for ids in documents]
    assert learned(SoftTargetDataset(out)) == [w for w, is_gone in zip(expected, gone, strict=True) if not is_gone]
    assert learned(SoftTargetDataset(out, snapshot=1)) == before


def test_batches_are_the_same_before_and_after_compacting(copy):
    select_rows(copy, Rule(min_loss=2.0))
    forget_documents(copy, DOCUMENTS[:4])
    before = SoftTargetDataset(copy)
    batches = [collate([before[index] for index in range(start, start + 4)]) for start in (0, 4)]
    compact(copy)
    after = SoftTargetDataset(copy)
    assert len(after) == len(before)
    for start, batch in zip((0, 4), batches, strict=True):
        again = collate([after[index] for index in range(start, start + 4)])
        for name, column in batch.items():
            np.testing.assert_array_equal(again[name].numpy(), column.numpy(), err_msg=name)


def test_the_licenses_of_all_corpora_are_recorded(copy, write_dataset, tmp_path):
    other = write_dataset(tmp_path / "other", {"train": [2]}, seed=5)
    for url, terms in ((copy, "PSF-2.0"), (other, None)):
        _identify(url, terms)
    merge([copy, other], out := str(tmp_path / "both"))
    both = SoftTargetDataset(out)
    assert both.metadata.corpus_licence == "PSF-2.0 AND not stated"
    assert len(both) == 14
    assert both[13].targets.has_target().any()


def _identify(url: str, terms: str | None) -> None:
    """Publishes a snapshot that states a corpus, as an annotation does."""
    snapshot = load_snapshot(url)
    corpus = CorpusInfo(num_files=1, size_bytes=1, fingerprint=url)
    draft = Draft(
        complete=True,
        identity=dataclasses.replace(snapshot.identity, corpus=corpus, corpus_licence=terms),
        num_documents_in=snapshot.num_documents_in,
        rejected={},
        splits=snapshot.splits,
        shards=tuple(snapshot.shards()),
    )
    assert publish(url, draft, snapshot.number + 1)


def test_shards_of_another_tokenizer_are_refused_naming_the_difference(write_dataset, tokenizer_info, tmp_path):
    one = write_dataset(tmp_path / "one", {"train": [2]})
    other = write_dataset(tmp_path / "other", {"train": [2]}, tokenizer=tokenizer_info("0" * 32), seed=3)
    snapshots = [load_snapshot(url) for url in (one, other)]
    (mine,), (foreign,) = (snapshot.shards() for snapshot in snapshots)
    shutil.copy(snapshots[1].shard_url(foreign), Path(one) / "targets/train/zzz.parquet")
    entries = (mine, dataclasses.replace(foreign, name="zzz", path="targets/train/zzz.parquet"))
    splits = {"train": sum_summaries(snapshot.splits["train"] for snapshot in snapshots)}
    draft = Draft(complete=True, identity=Identity(), num_documents_in=0, rejected={}, splits=splits, shards=entries)
    publish(one, draft, 2)
    with pytest.raises(FingerprintMismatchError, match=r"tokenizer\.fingerprint: 'f{32}' in the first shard"):
        SoftTargetDataset(one)[3]
