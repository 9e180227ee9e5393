"""Settings of the job: from flags and files, and checked for invalid values."""

from pathlib import Path

import pytest

from logitcask.pipeline.commands import Annotate
from logitcask.pipeline.config import AnnotateConfig
from logitcask.schemas.cli import parse_command
from logitcask.schemas.errors import UsageError

WORDS = ["texts", "--teacher", "t", "--out", "o"]


@pytest.mark.parametrize(("word", "expected"), [("2,4.5", (2.0, 4.5)), ("2", (2.0,)), ("1,", (1.0,))])
def test_temperatures_are_numbers_separated_by_commas(word: str, expected: tuple[float, ...]) -> None:
    parsed = parse_command(Annotate, "annotate", ["--temperatures", word, *WORDS])
    assert isinstance(parsed, AnnotateConfig)
    assert parsed.temperatures == expected


def test_temperatures_in_a_settings_file_are_a_list(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("temperatures = [2, 4.5]\n")
    parsed = parse_command(Annotate, "annotate", [*WORDS, "--config", str(tmp_path / "run.toml")])
    assert isinstance(parsed, AnnotateConfig)
    assert parsed.temperatures == (2.0, 4.5)


def test_flags_override_a_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('corpus = ["a", "b"]\nteacher = "t"\nout = "o"\ntau = 0.01\nbatch_tokens = 512\nentropy = false\n')
    parsed = parse_command(Annotate, "annotate", ["--config", str(file), "--tau", "0.02"])
    assert parsed == Annotate(corpus=("a", "b"), teacher="t", out="o", tau=0.02, batch_tokens=512, entropy=False)


def test_old_option_names_still_work() -> None:
    words = ["--corpus-licence", "CC0-1.0", "--retry-set-aside", *WORDS]
    parsed = parse_command(Annotate, "annotate", words)
    assert parsed == Annotate(corpus=("texts",), teacher="t", out="o", corpus_license="CC0-1.0", retry_quarantined=True)


def test_a_device_map_and_several_workers_exclude_each_other() -> None:
    config = AnnotateConfig(corpus=("texts",), teacher="teacher", out="out", device_map="auto", workers=2)
    with pytest.raises(UsageError, match="--workers 1"):
        config.check()
