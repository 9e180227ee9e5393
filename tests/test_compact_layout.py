"""The layout "compact" from a corpus to a student: smaller shards, and the same student to the last bit."""

from pathlib import Path

import pytest

from logitcask.schemas.cli import main
from logitcask.schemas.dataset.shard_view import open_shard
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.format.scheme import Layout

SETTINGS = ["--window", "64", "--batch-tokens", "256", "--held-out", "0.2", "--threads", "1", "--entropy"]
pytestmark = pytest.mark.slow

LAYOUTS: tuple[Layout, ...] = ("plain", "compact")


@pytest.fixture(scope="module")
def learned(tiny_teacher: Path, english: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for each layout, with a dataset of the same text and the student that learned from it."""
    root = tmp_path_factory.mktemp("layouts")
    (root / "corpus").mkdir()
    for start in range(0, 6000, 600):
        (root / "corpus" / f"{start:05d}.txt").write_text(english[start : start + 600])
    student = str(root / "student")
    assert main(["student", "init", "--teacher", str(tiny_teacher), "--keep-layers", "0,3", "--out", student]) == 0
    for layout in LAYOUTS:
        out = str(root / layout / "dataset")
        teacher = ["--teacher", str(tiny_teacher), *SETTINGS, "--layout", layout]
        assert main(["annotate", str(root / "corpus"), *teacher, "--out", out]) == 0
        run = ["--student", student, "--out", str(root / layout / "run"), "--steps", "2", "--batch-windows", "2"]
        assert main(["train", out, *run]) == 0
    return root


def test_shards_hold_gaps_and_are_whole(learned):
    snapshot = load_snapshot(str(learned / "compact/dataset"))
    for entry in snapshot.shards():
        with open_shard(snapshot, entry) as shard:
            assert shard.metadata.layout == "compact"
    assert main(["verify", str(learned / "compact/dataset")]) == 0


def test_the_student_is_the_same_to_the_last_bit(learned):
    plain, compact = ((learned / layout / "run/student/model.safetensors").read_bytes() for layout in LAYOUTS)
    assert plain == compact
    assert plain != (learned / "student/model.safetensors").read_bytes()


def test_what_is_selected_from_it_is_learned_from_and_compacted(learned):
    out = str(learned / "compact/dataset")
    assert main(["select", out, "--min-entropy", "0.5"]) == 0
    assert main(["compact", out]) == 0
    assert main(["verify", out]) == 0
    run = ["--student", str(learned / "student"), "--out", str(learned / "again"), "--steps", "1"]
    assert main(["train", out, *run, "--batch-windows", "2"]) == 0
