"""The command `logitcask`: finds the subcommand, parses its options and runs it.

A subcommand is a frozen dataclass with a method `run() -> int`; its fields are its options. The package that owns it
registers it under the entry-point group `logitcask.commands`. Only the module of the called subcommand is imported.
Flags override the TOML file named by `--config`, which overrides the defaults. In both, `~` is the home directory, and
other relative paths begin at the working directory.

A renamed option or option value keeps its old form as a hidden alias, on the command line and in the file. The command
lists it in a class attribute: `old_names: ClassVar = {"old_option": "new_option", "option=old": "option=new"}`.
"""

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import MISSING, fields
from functools import partial
from importlib.metadata import EntryPoint, distribution, version
from inspect import cleandoc
from pathlib import Path
from typing import Any, NoReturn, Protocol, get_type_hints

from logitcask.schemas.errors import LogitcaskError, UsageError
from logitcask.schemas.redaction import printable, redact, scrub
from logitcask.schemas.system_errors import describe_system_error, naming
from logitcask.schemas.terminal.guard import guard_output, guarded_output, styled

COMMAND_GROUP = "logitcask.commands"
INTERRUPTED = 130


class Command(Protocol):
    """What an entry point names: a dataclass whose fields are options."""

    def run(self) -> int:
        """Runs the command; returns the exit status."""
        ...


def console(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program `logitcask`: runs the command line and exits."""
    guard_output()
    status = main(arguments)
    if status == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        # A runner's threads may still be inside libraries; a normal interpreter exit would then abort the process.
        atexit._run_exitfuncs()
        os._exit(status)
    sys.exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 success, 1 bad data, 2 bad usage, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with guarded_output():
        return _run(words)


def _run(words: list[str]) -> int:
    try:
        try:
            return _dispatch(words)
        finally:
            _flush_stdout()
    except LogitcaskError as error:
        print(f"logitcask: error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("logitcask: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return 1  # the reader of our output is gone (`| head`)
    except Exception as error:
        described = describe_system_error(error)
        # Without a description it is a bug: the traceback helps to fix it.
        print(f"logitcask: error: {described}" if described else traceback.format_exc(), file=sys.stderr)
        return 1


def _flush_stdout() -> None:
    """Writes what is buffered while an error can still be reported."""
    if sys.stdout is None:
        return
    try:
        with naming("stdout"):
            sys.stdout.flush()
    except OSError:
        # This prevents the interpreter's complaint at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def registered_commands() -> dict[str, EntryPoint]:
    """Subcommands by the words that call them ("student init"), sorted by name."""
    # Of this package only: a look into every installed package takes longer than to show a snapshot.
    points = distribution("logitcask").entry_points.select(group=COMMAND_GROUP)
    return {point.name.replace(".", " "): point for point in sorted(points, key=lambda point: point.name)}


def _dispatch(words: list[str]) -> int:
    commands = registered_commands()
    if not words or words[0] in ("-h", "--help"):
        print(_overview(commands), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] == "--version":
        print(f"logitcask {version('logitcask')}")
        return 0
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in commands and len(words) >= length:
            return parse_command(commands[name].load(), name, words[length:]).run()
    group = [name for name in commands if name.startswith(f"{words[0]} ")]
    if group:
        raise UsageError(f"incomplete command {words[0]!r}: use one of {', '.join(group)}")
    raise UsageError(f"unknown command {words[0]!r}; commands: {', '.join(commands)} (see `logitcask --help`)")


def _overview(commands: dict[str, EntryPoint]) -> str:
    width = max(map(len, commands), default=0)
    lines = [f"  {name:<{width}}  {_first_line(point.load())}" for name, point in commands.items()]
    return "\n".join(
        [
            "usage: logitcask COMMAND [OPTIONS]",
            "",
            "Offline logit distillation: annotate a corpus with a teacher once, train students from the shards.",
            "",
            "commands:",
            *lines,
            "",
            "`logitcask COMMAND --help` shows a command's options and an example.",
        ]
    )


def _first_line(command: type) -> str:
    return (command.__doc__ or "").strip().splitlines()[0]


def parse_command(command: type, name: str, words: Sequence[str]) -> Command:
    """The command with the options in `words`. `--help` and bad options print and exit, with status 0 and 2."""
    import tyro

    words, file = _take_config([_with_home(word) for word in words])
    settings = _read_config(file, command) if file else {}
    default, flags = _apply_settings(command, settings)
    current = _with_current_names([*flags, *words], _old_names(command))
    description = cleandoc(command.__doc__ or "")
    if any("\0" in word for word in current) or "\\x00" in repr(default):
        raise UsageError("a word of the command or a value in --config contains a NUL character; remove it")
    parser = partial(tyro.cli, command, prog=f"logitcask {name}", description=description, default=default)
    # The parser quotes words, and wraps them, so that a credential could no longer be found in its output.
    shown = [printable(scrub(word)) for word in current]
    if shown != current:
        with suppress(SystemExit):
            return parser(args=current, console_outputs=False)
    with styled(trusted=repr(default).isprintable()):
        command_of_shown = parser(args=shown)
    if shown != current:
        raise UsageError(f"invalid options: {' '.join(shown)}")
    return command_of_shown


def _old_names(command: type) -> dict[str, str]:
    return getattr(command, "old_names", {})


def _with_current_names(words: Sequence[str], old_names: dict[str, str]) -> list[str]:
    """`words` with the old names of options and of their values replaced."""
    current, option = [], ""
    for word in words:
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if flag:
            dashes = "--no-" if flag.startswith(("--no-", "--no_")) else "--"
            name = flag[len(dashes) :].replace("-", "_")
            option = old_names.get(name, name)
            if option != name:
                flag = dashes + option.replace("_", "-")
        setting = f"{option}={value}"
        current.append(flag + equals + old_names.get(setting, setting).removeprefix(f"{option}="))
    return current


def _take_config(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The words without `--config FILE`, and FILE."""
    rest, file = [], None
    remaining = iter(words)
    for word in remaining:
        if word == "--config":
            file = next(remaining, None)
            if file is None:
                raise UsageError("--config requires the name of a TOML file")
        elif word.startswith("--config="):
            file = word.removeprefix("--config=")
        else:
            rest.append(word)
    return rest, file


def _with_home(value: Any) -> Any:
    """A word or setting with a leading `~` replaced by the home directory, because not every shell and no file does."""
    if isinstance(value, list):
        return [_with_home(one) for one in value]
    if not isinstance(value, str):
        return value
    flag, equals, path = value.partition("=") if value.startswith("--") else ("", "", value)
    return flag + equals + (os.path.expanduser(path) if path.split("/")[0] == "~" else path)  # noqa: PTH111


def _read_config(file: str, command: type) -> dict[str, Any]:
    import tomllib

    if "://" in file:
        raise UsageError(f"--config reads a local TOML file, not a URL: {redact(file)}; download it first")
    try:
        # Some editors begin a file with a byte order mark.
        settings = tomllib.loads(Path(file).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config {file}: {error}") from error
    old_names = _old_names(command)
    settings = {old_names.get(n := key.replace("-", "_"), n): _with_home(value) for key, value in settings.items()}
    known = option_fields(command)
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise UsageError(f"--config {file}: unknown option {unknown[0]!r}; options: {', '.join(sorted(known))}")
    return settings


def option_fields(command: type) -> dict[str, str]:
    """A command's options, with `_` for `-`, and the fields that they set.

    A field may give its option another name in its annotation: a field cannot be named `run`, as the method of every
    command is.
    """
    hints = get_type_hints(command, include_extras=True)
    return {_option_name(hints[field.name]) or field.name: field.name for field in fields(command)}


def _option_name(hint: Any) -> str | None:
    names = [getattr(one, "name", None) for one in getattr(hint, "__metadata__", ())]
    return next((name for name in names if isinstance(name, str)), None)


def _apply_settings(command: type, settings: dict[str, Any]) -> tuple[Any, list[str]]:
    """Settings of positional arguments as defaults, and all others as flags: one parser then checks both."""
    import tyro

    by_field = get_type_hints(command, include_extras=True)
    hints = {option: by_field[name] for option, name in option_fields(command).items()}
    positional = {
        name: tuple(v) if isinstance(v, list) else v for name, v in settings.items() if _is_positional(hints[name])
    }
    flags = [
        flag for name, value in settings.items() if name not in positional for flag in _flags(name, value, hints[name])
    ]
    if not positional:
        return None, flags
    required = {
        field.name: tyro.MISSING
        for field in fields(command)
        if field.default is MISSING and field.default_factory is MISSING
    }
    return command(**{**required, **positional}), flags


def _is_positional(hint: Any) -> bool:
    import tyro

    return tyro.conf.Positional[int].__metadata__[0] in getattr(hint, "__metadata__", ())  # pyright: ignore


def _flags(name: str, value: Any, hint: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    values = [str(one) for one in value] if isinstance(value, list) else [str(value)]
    if _is_repeated(hint):
        return [f"--{flag}={one}" for one in values]
    return [f"--{flag}", *([",".join(values)] if _is_one_word(hint) else values)]


def _is_repeated(hint: Any) -> bool:
    """Whether an option is repeated for each of its values."""
    import tyro

    return tyro.conf.UseAppendAction[tuple[str]].__metadata__[0] in getattr(hint, "__metadata__", ())  # pyright: ignore


def _is_one_word(hint: Any) -> bool:
    """Whether an option parses its own value; a list is then one word with commas."""
    import tyro

    return any(isinstance(one, tyro.constructors.PrimitiveConstructorSpec) for one in getattr(hint, "__metadata__", ()))
