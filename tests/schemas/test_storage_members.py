"""Files of a dataset are where their names say: no link leads out, and nothing but files is read or removed."""

import os
from pathlib import Path

import pytest

from logitcask.schemas import storage
from logitcask.schemas.errors import ForeignOutputError


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "ds/targets").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/secret.parquet").write_text("secret")
    (tmp_path / "ds/targets/a.parquet").write_text("a")
    return tmp_path / "ds"


def test_a_link_that_leads_out_is_refused_and_one_inside_is_not(root):
    (root / "targets/near.parquet").symlink_to("a.parquet")
    (root / "targets/far.parquet").symlink_to(root.parent / "home/secret.parquet")
    (root / "far").symlink_to(root.parent / "home")
    assert storage.inside(str(root), "targets/near.parquet") == f"{root}/targets/near.parquet"
    for path in ("targets/far.parquet", "far/secret.parquet", "far"):
        with pytest.raises(ForeignOutputError, match="a symbolic link that leads out of"):
            storage.inside(str(root), path)


def test_the_directory_itself_may_be_a_link(root):
    link = root.parent / "link"
    link.symlink_to(root)
    assert storage.inside(str(link), "targets/a.parquet").endswith("link/targets/a.parquet")


def test_pipes_and_devices_are_refused_without_being_opened(root):
    os.mkfifo(root / "targets/pipe.parquet")
    for read in (
        lambda: storage.inside(str(root), "targets/pipe.parquet"),
        lambda: storage.list_members(str(root), "targets"),
    ):
        with pytest.raises(ForeignOutputError, match="neither a file nor a directory"):
            read()


def test_listings_do_not_follow_links_to_directories(root):
    (root / "targets/more").symlink_to(root.parent / "home")
    assert [file.url for file in storage.list_members(str(root), "targets")] == [f"{root}/targets/a.parquet"]
    assert list(storage.list_tree(str(root))) == ["targets/a.parquet"]


def test_removing_a_link_keeps_what_it_leads_to(root):
    (root / "targets/far.parquet").symlink_to(root.parent / "home/secret.parquet")
    (root / "far").symlink_to(root.parent / "home")
    storage.remove_member(str(root), "targets/far.parquet")
    with pytest.raises(ForeignOutputError):
        storage.remove_member(str(root), "far/secret.parquet")
    assert (root.parent / "home/secret.parquet").read_text() == "secret"
    assert not (root / "targets/far.parquet").is_symlink()


def test_a_link_to_itself_and_a_directory_as_a_file_have_names(root):
    (root / "targets/loop.parquet").symlink_to("loop.parquet")
    with pytest.raises(ForeignOutputError, match="leads to itself"):
        storage.inside(str(root), "targets/loop.parquet")
    with pytest.raises(ForeignOutputError, match="a directory, where a file should be"):
        storage.read_bytes(str(root / "targets"))
