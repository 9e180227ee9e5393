"""A fault ordered by a test happens once, in the unit that it names; without a directory nothing happens."""

import errno
from pathlib import Path

import pytest

from logitcask.schemas import fault_points, storage


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "faults"
    directory.mkdir()
    monkeypatch.setattr(fault_points, "_DIRECTORY", str(directory))
    return directory


def test_an_order_is_executed_once_unless_it_says_always(faults: Path) -> None:
    (faults / "encode").write_text("full")
    with pytest.raises(OSError, match="No space left"):
        fault_points.reach("encode", "u")
    fault_points.reach("encode", "u")
    (faults / "encode").write_text("full * always")
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            fault_points.reach("encode", "u")


def test_an_order_waits_for_the_unit_and_the_point_it_names(faults: Path) -> None:
    (faults / "encode").write_text("full 0002-*")
    fault_points.reach("encode", "0001-abc")
    fault_points.reach("forward", "0002-abc")
    with pytest.raises(OSError, match="0002-abc"):
        fault_points.reach("encode", "0002-abc")
    assert [line.split()[:2] for line in (faults / "log").read_text().splitlines()] == [
        ["encode", "0001-abc"],
        ["forward", "0002-abc"],
        ["encode", "0002-abc"],
    ]


def test_a_full_disk_leaves_neither_the_file_nor_a_temporary_file(faults: Path, tmp_path: Path) -> None:
    (faults / "written").write_text("full")
    with pytest.raises(OSError, match="No space left") as caught:
        storage.create(str(tmp_path / "out/a"), b"x")
    assert caught.value.errno == errno.ENOSPC
    assert list((tmp_path / "out").iterdir()) == []
    assert storage.create(str(tmp_path / "out/a"), b"x")


def test_without_the_environment_variable_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fault_points._DIRECTORY is None
    (tmp_path / "encode").write_text("full")
    monkeypatch.chdir(tmp_path)
    fault_points.reach("encode", "u")
    assert (tmp_path / "encode").exists()
