"""What is installed is one package, `logitcask`, whichever way it was built."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from repository import ROOT


def build_wheel(source: Path, directory: Path) -> Path:
    return Path(next(WheelBuilder(str(source)).build(directory=str(directory), versions=["standard"])))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_a_wheel_installs_one_package_with_every_module(wheel):
    names = {name for name in contents(wheel) if ".dist-info/" not in name}
    modules = {
        f"logitcask/{path.relative_to(ROOT)}"
        for package in ("pipeline", "schemas", "student", "teacher")
        for path in (ROOT / package).rglob("*.py")
    }
    assert modules <= names
    assert {name.partition("/")[0] for name in names} == {"logitcask"}


def test_a_wheel_from_the_sdist_equals_one_from_the_tree(wheel, tmp_path):
    sdist = Path(next(SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])))
    subprocess.run(["tar", "-xzf", sdist], cwd=tmp_path, check=True)
    rebuilt = build_wheel(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path)
    assert contents(rebuilt) == contents(wheel)


def test_an_installed_wheel_works_with_user_modules_of_the_same_names(wheel, tmp_path):
    (tmp_path / "installed").mkdir()
    with ZipFile(wheel) as file:
        file.extractall(tmp_path / "installed")
    for name in ("student", "teacher", "pipeline", "schemas"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('a module of the user')\n")
    program = "import logitcask.pipeline.config, logitcask.student.settings; print(logitcask.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "installed")
