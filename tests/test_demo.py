"""The demo twice: the second run finds what the first one finished, and a run after Ctrl-C continues."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo.py"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The demo with commands that only leave their main files, and record their names in `demo.calls`."""
    spec = spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.calls = []

    def command(name: str, *words: object) -> None:
        module.calls.append(name)
        if name == module.interrupted:
            raise KeyboardInterrupt
        (tmp_path / "t/shards/snapshots").mkdir(parents=True, exist_ok=True)
        (tmp_path / "t/shards/snapshots/000001.json").touch()

    module.interrupted = None
    monkeypatch.setattr(module, "logitcask", command)
    monkeypatch.setattr(module, "summarize", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--teacher", "t", "--out", str(tmp_path), "--characters", "20000"])
    return module


def test_a_second_run_does_not_touch_the_corpus_nor_train_again(demo: ModuleType, tmp_path: Path) -> None:
    demo.main()
    before = (tmp_path / "t/topics.jsonl").stat().st_mtime_ns
    demo.main()
    assert demo.calls == ["annotate", "inspect", "student", "train", "annotate", "inspect"]
    assert (tmp_path / "t/topics.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize("interrupted", ["annotate", "inspect", "student", "train"])
def test_a_run_after_an_interruption_continues(demo: ModuleType, interrupted: str) -> None:
    demo.interrupted = interrupted
    with pytest.raises(SystemExit, match="The same command continues"):
        demo.main()
    demo.interrupted, demo.calls = None, []
    demo.main()
    assert demo.calls == ["annotate", "inspect", "student", "train"]
