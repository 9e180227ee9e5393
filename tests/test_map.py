"""The map in CONTRIBUTING.md is true: its folders and modules exist, and each module of the product is on it."""

import re

from repository import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
PACKAGES = ("logitcask", "schemas", "teacher", "pipeline", "student")


def mapped_modules() -> dict[str, set[str]]:
    """Folder to its modules, as the map says."""
    tree = PAGE.split("## Map")[1].split("```")[1].strip().splitlines()
    modules: dict[str, set[str]] = {}
    folder = ""
    for line in tree:
        if line.startswith(" "):
            modules[folder] |= set(line.split())
        else:
            folder = line.split()[0].rstrip("/")
            modules[folder] = set()
    assert len(tree) <= 80
    return modules


def test_the_map_names_each_folder_and_module_of_the_product():
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            names = {path.stem} - {"__init__"}
            found[str(path.parent.relative_to(ROOT))] = found.get(str(path.parent.relative_to(ROOT)), set()) | names
    assert mapped_modules() == found


def test_the_table_of_additions_names_files_that_exist():
    """A name is relative to the repository, or to the first folder of its row."""
    table = PAGE.split("**Where additions go")[1].split("## Rules")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) == 10
    for row in rows:
        names = re.findall(r"`([\w./-]+(?:/|\.py|\.md|\.toml))`", row)
        first = ROOT / names[0]
        folder = first if first.is_dir() else first.parent
        assert not [name for name in names if not (ROOT / name).exists() and not (folder / name).exists()]
