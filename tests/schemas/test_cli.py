import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import tyro

from logitcask.schemas import cli
from logitcask.schemas.errors import UsageError
from logitcask.schemas.terminal.guard import guarded_output


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A command to parse options for."""

    corpus: tyro.conf.Positional[tuple[str, ...]]
    teacher: str
    steps: int = 10
    entropy: bool = True
    layers: tuple[int, ...] = ()

    def run(self) -> int:
        return 0


def parse(*words: str) -> Sample:
    command = cli.parse_command(Sample, "sample", words)
    assert isinstance(command, Sample)
    return command


@pytest.fixture
def config(tmp_path):
    def write(text: str) -> str:
        file = tmp_path / "run.toml"
        file.write_text(text)
        return str(file)

    return write


def test_flags_override_the_config_file_which_overrides_defaults(config):
    file = config('corpus = ["a", "b"]\nteacher = "t"\nsteps = 20\nentropy = false\nlayers = [0, 2]')
    assert parse("--config", file, "--steps", "30") == Sample(
        corpus=("a", "b"), teacher="t", steps=30, entropy=False, layers=(0, 2)
    )


def test_a_positional_argument_overrides_the_config_file(config):
    file = config('corpus = ["a"]')
    assert parse("c", f"--config={file}", "--teacher", "t").corpus == ("c",)


def test_dashes_and_underscores_are_equal_in_a_config_file(config):
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Dashed:
        """A command."""

        batch_windows: int = 1

        def run(self) -> int:
            return 0

    assert cli.parse_command(Dashed, "dashed", ["--config", config("batch-windows = 4")]) == Dashed(batch_windows=4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Renamed:
    """A command with an option and a value that had other names before."""

    files: tyro.conf.Positional[tuple[str, ...]] = ()
    try_again: bool = False
    license: str = ""
    color: Literal["black", "red"] = "black"
    old_names: ClassVar[dict[str, str]] = {"old_retry": "try_again", "terms": "license", "color=crimson": "color=red"}

    def run(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--terms", "CC0"], Renamed(license="CC0")),
        (["--terms=a=b"], Renamed(license="a=b")),
        (["--old-retry"], Renamed(try_again=True)),
        (["--old_retry"], Renamed(try_again=True)),
        (["--no-old-retry"], Renamed(try_again=False)),
        (["--color", "crimson"], Renamed(color="red")),
        (["--color=crimson"], Renamed(color="red")),
        (["crimson", "--license", "crimson"], Renamed(files=("crimson",), license="crimson")),
    ],
)
def test_old_names_of_options_and_values_still_work(words, expected):
    assert cli.parse_command(Renamed, "renamed", words) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('terms = "CC0"', Renamed(license="CC0")),
        ("old-retry = true", Renamed(try_again=True)),
        ("old_retry = true", Renamed(try_again=True)),
        ('color = "crimson"', Renamed(color="red")),
    ],
)
def test_old_names_still_work_in_a_config_file(config, text, expected):
    assert cli.parse_command(Renamed, "renamed", ["--config", config(text)]) == expected


def test_help_hides_old_names(capsys):
    with pytest.raises(SystemExit):
        cli.parse_command(Renamed, "renamed", ["--help"])
    shown = capsys.readouterr().out
    assert "--try-again" in shown
    assert not [old for old in ("old-retry", "terms", "crimson", "old-names") if old in shown]


@pytest.mark.parametrize(
    ("text", "found"),
    [("steps = ", "Invalid value"), ("stpes = 3", "unknown option 'stpes'")],
    ids=["not TOML", "unknown key"],
)
def test_a_bad_config_file_is_named(config, text, found):
    file = config(text)
    with pytest.raises(UsageError, match=found) as raised:
        parse("c", "--teacher", "t", "--config", file)
    assert file in str(raised.value)


def test_a_url_for_the_config_file_is_refused_without_its_credentials():
    with pytest.raises(UsageError, match="local TOML file") as raised:
        parse("--config", "s3://KEY:se/cret@bucket/run.toml")
    assert "cret" not in str(raised.value)


@pytest.mark.parametrize(
    "words",
    [
        ["c", "--teacher", "t", "--steps", "s3://KEY:se/cret@bucket/" + "long/" * 40],
        ["c", "--teacher", "t", "--unknown=\x1b[31m", "--token=secret"],
        ["c", "--teacher", "t", "\u202e\x9b31m", "--steps"],
    ],
)
def test_the_parser_shows_no_credentials_and_no_control_characters(words, capsys):
    with guarded_output(), pytest.raises(SystemExit) as stopped:
        parse(*words)
    assert stopped.value.code == 2
    shown = "".join(capsys.readouterr())
    assert "teacher" in shown or "steps" in shown or "Unrecognized" in shown
    assert not [word for word in ("cret", "\x1b", "\u202e", "\x9b") if word in shown]


def test_names_with_control_characters_are_parsed_unchanged():
    assert parse("\x1b[2J", "--teacher", "https://u:p@h").corpus == ("\x1b[2J",)
    assert parse("\x1b[2J", "--teacher", "https://u:p@h").teacher == "https://u:p@h"


@pytest.mark.parametrize("words", [["c"], ["c", "--teacher", "t", "--steps", "many"], ["--unknown", "1"]])
def test_bad_options_exit_with_status_2(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(*words)
    assert stopped.value.code == 2


def test_a_setting_of_the_wrong_type_exits_with_status_2(config, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("c", "--teacher", "t", "--config", config('steps = "many"'))
    assert stopped.value.code == 2


@pytest.mark.parametrize("name", sorted(cli.registered_commands()))
def test_every_command_has_help_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*name.split(), "--help"])
    assert stopped.value.code == 0
    assert f"logitcask {name}" in capsys.readouterr().out.split("Example:")[1]


def test_the_overview_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in cli.registered_commands():
        assert f"  {name} " in shown


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["student"], ["student", "frobnicate"]])
def test_an_unknown_command_exits_with_status_2(words, capsys):
    assert cli.main(words) == 2
    assert "annotate" in (err := capsys.readouterr().err) or "student init" in err


def test_bad_data_exits_with_status_1_and_the_reason(tmp_path, capsys):
    assert cli.main(["inspect", str(tmp_path / "nowhere")]) == 1
    assert "no snapshot here" in capsys.readouterr().err


def test_inspect_shows_a_dataset(small_dataset, capsys):
    assert cli.main(["inspect", small_dataset.url]) == 0
    shown = capsys.readouterr().out
    for expected in ("test/teacher", "complete", "entropy, nats", "2 rejected (empty 2)", "312 in 6 windows"):
        assert expected in shown


def test_inspect_prints_json(small_dataset, capsys):
    assert cli.main(["inspect", small_dataset.url, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == "logitcask.inspect/1"
    assert report["total"]["tokens"] == 312
    assert report["documents"]["rejected_by_reason"] == {"empty": 2}
    assert report["total"]["bytes"] == sum(entry.size_bytes for entry in small_dataset.shards())


def test_verify_exits_with_0_for_a_sound_dataset_and_1_otherwise(small_dataset, capsys):
    assert cli.main(["verify", small_dataset.url]) == 0
    next(Path(small_dataset.url).glob("targets/*/*.parquet")).unlink()
    assert cli.main(["verify", small_dataset.url, "--json"]) == 1
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :])["faults"][0]["error"] == "MissingShardError"


def imported_by(*words: str) -> set[str]:
    """Top-level modules that a fresh interpreter has imported after the command."""
    program = (
        f"import sys; from logitcask.schemas import cli; cli.main({list(words)!r}); "
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_help_imports_nothing_heavy():
    assert not imported_by("--help") & {"torch", "transformers", "apache_beam", "pyarrow", "numpy"}


def test_inspect_imports_nothing_heavy(small_dataset):
    slow = {"torch", "transformers", "apache_beam", "pyarrow", "numpy", "fsspec", "typeguard", "asyncio"}
    assert not imported_by("inspect", small_dataset.url) & slow


def test_a_tilde_is_the_home_directory_in_flags_and_files(config, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    expected = Sample(corpus=(f"{tmp_path}/a", "b~/c", "~d"), teacher=str(tmp_path))
    file = Path(config('corpus = ["~/a", "b~/c", "~d"]\nteacher = "~"')).name
    assert parse("--config", f"~/{file}") == expected
    assert parse(f"--config=~/{file}") == expected
    assert parse("~/a", "b~/c", "~d", "--teacher", "~") == expected
    assert parse("~/a", "b~/c", "~d", "--teacher=~") == expected


def test_relative_paths_of_a_config_file_begin_at_the_working_directory(config):
    assert parse("--config", config('corpus = ["a/b"]\nteacher = "../t"')) == Sample(corpus=("a/b",), teacher="../t")


def test_a_config_file_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "run.toml").write_bytes(b'\xef\xbb\xbfcorpus = ["a"]\r\nteacher = "\xc3\xa9"\r\n')
    assert parse("--config", str(tmp_path / "run.toml")) == Sample(corpus=("a",), teacher="é")


def test_a_nul_character_is_bad_usage(config):
    with pytest.raises(UsageError, match="NUL"):
        parse("c\0", "--teacher", "t")
    with pytest.raises(UsageError, match="NUL"):
        parse("c", "--config", config('teacher = "t\\u0000"'))
