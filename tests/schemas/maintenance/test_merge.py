"""`merge`: one dataset of several, whole in itself, with the terms and origins of all."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import pytest
from random_shards import TEACHER, write_annotated_dataset

from logitcask.schemas.dataset.shard_view import open_shard
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.errors import ConfigurationMismatchError, ForeignOutputError, UsageError
from logitcask.schemas.format.scheme import TopKScheme
from logitcask.schemas.maintenance.merge import merge, text
from logitcask.schemas.maintenance.select_forget import forget_documents
from logitcask.schemas.maintenance.verify import verify

OTHER_TEACHER = dataclasses.replace(TEACHER, name="x", fingerprint="other")


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> tuple[str, str]:
    """A dataset of another corpus under other terms, and one whose shards have the names of the first's."""
    one, other = (str(tmp_path_factory.mktemp(name)) for name in ("b", "c"))
    write_annotated_dataset(one, prefix="b", seed=1, corpus_licence="CC-BY-4.0", held_out=0.2)
    write_annotated_dataset(other, prefix="a", seed=2)
    return one, other


def windows_of(out: str, contents) -> Counter:
    snapshot = load_snapshot(out)
    found = []
    for entry in snapshot.shards():
        with open_shard(snapshot, entry) as shard:
            found += [contents(shard.read(i, i + 1).targets) for i in range(shard.num_windows)]
    return Counter(map(repr, found))


def test_it_shows_what_the_others_show_and_needs_none_of_them(annotated_copy, others, tmp_path, contents):
    forget_documents(annotated_copy, ["a0-0"])
    expected = windows_of(annotated_copy, contents) + windows_of(others[0], contents)
    before = [load_snapshot(url) for url in (annotated_copy, others[0])]
    result = merge([annotated_copy, others[0]], out := str(tmp_path / "both"))
    shutil.rmtree(annotated_copy)
    merged = load_snapshot(out)
    assert windows_of(out, contents) == expected
    assert verify(out).faults == ()
    assert merged.num_documents_in == sum(one.num_documents_in for one in before)
    assert (merged.rejected, merged.removed) == ({"bad": 4}, {"forgotten": 1})
    assert merged.total().statistics == before[0].total().statistics + before[1].total().statistics
    assert result.num_positions == merged.total().num_positions
    assert len(list((Path(out) / "rejected").iterdir())) == 2


def test_what_was_forgotten_is_not_copied(annotated_copy, others, tmp_path):
    forget_documents(annotated_copy, ["a0-0"])
    merge([annotated_copy, others[0]], out := str(tmp_path / "both"))
    assert load_snapshot(out).selections == ()
    targets = (path for path in Path(out).rglob("targets/**/*") if path.is_file())
    assert not [path for path in targets if b"a0-0" in path.read_bytes()]


def test_terms_and_origins_of_all_are_carried(annotated_dataset, others, tmp_path):
    merge([annotated_dataset, others[0]], out := str(tmp_path / "both"))
    identity = load_snapshot(out).identity
    assert identity.corpus_licence == "PSF-2.0 AND CC-BY-4.0"
    assert identity.teacher is not None
    assert identity.teacher.licence == "apache-2.0"
    assert [one["corpora"][0]["fingerprint"] for one in identity.merged] == ["a", "b"]
    assert [one["corpus_licence"] for one in identity.merged] == ["PSF-2.0", "CC-BY-4.0"]
    assert identity.corpus is not None
    assert identity.corpus.num_files == 6


def test_shards_and_documents_of_one_name_stay_both(annotated_dataset, others, tmp_path, contents):
    result = merge([annotated_dataset, others[1]], out := str(tmp_path / "both"))
    assert windows_of(out, contents) == windows_of(annotated_dataset, contents) + windows_of(others[1], contents)
    assert len({entry.name for entry in load_snapshot(out).shards()}) == 6
    assert result.shared_ids > 5
    assert "document ids occur in several datasets" in text(result)
    assert verify(out).faults == ()


def test_one_shard_in_two_datasets_is_refused(annotated_dataset, annotated_copy, tmp_path):
    with pytest.raises(UsageError, match="would be learned twice"):
        merge([annotated_dataset, annotated_copy], str(tmp_path / "both"))
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize(
    ("identity", "named"),
    [
        ({"scheme": TopKScheme(k=8)}, r"scheme\.kind: 'threshold' in .*, 'topk' in "),
        ({"teacher": OTHER_TEACHER}, r"teacher\.fingerprint: 'f2'"),
        ({"window_tokens": 128}, "window_tokens: 64"),
        ({"temperatures": (2.0,)}, r"temperatures: None in .*, \[2.0\] in "),
        ({"num_ids": 40}, "num_ids: None in .*, 40 in "),
    ],
)
def test_targets_made_in_another_way_are_refused_by_what_differs(annotated_dataset, tmp_path, identity, named):
    write_annotated_dataset(str(tmp_path / "other"), prefix="o", **identity)
    with pytest.raises(ConfigurationMismatchError, match=named):
        merge([annotated_dataset, str(tmp_path / "other")], str(tmp_path / "both"))
    assert not (tmp_path / "both").exists()


def test_again_it_does_nothing_and_cut_short_it_is_finished(annotated_dataset, others, tmp_path):
    sources, out = [annotated_dataset, others[0]], tmp_path / "both"
    first = merge(sources, str(out))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert merge(sources, str(out)) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    for path in (*out.glob("snapshots/*"), *out.glob("targets/train/b*")):
        path.unlink()
    assert merge(sources, str(out)) == first
    assert {path for path in out.rglob("*") if path.is_file()} == before.keys()


def test_different_held_out_shares_are_noted(annotated_dataset, others, tmp_path):
    result = merge([annotated_dataset, others[0]], str(tmp_path / "both"))
    assert "held-out shares differ (0.1, 0.2)" in text(result)


def test_another_output_is_left_alone(annotated_dataset, annotated_copy, others, tmp_path):
    sources = [annotated_dataset, others[0]]
    with pytest.raises(ConfigurationMismatchError, match="started with other inputs"):
        merge(sources, annotated_copy)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/thesis.tex").write_text("…")
    with pytest.raises(ForeignOutputError):
        merge(sources, str(tmp_path / "thesis"))
    with pytest.raises(UsageError, match="two or more"):
        merge(sources[:1], str(tmp_path / "one"))


def test_a_merged_snapshot_can_be_forgotten_from(annotated_dataset, others, tmp_path):
    merge([annotated_dataset, others[0]], out := str(tmp_path / "both"))
    snapshot = forget_documents(out, ["a0-0", "b1-0"]).snapshot
    assert dataclasses.asdict(snapshot)["removed"] == {"forgotten": 2}
