"""Whole commands on hostile datasets: a named error or success, within bounds, and nothing outside is touched.

Each command runs in a forked process, so that its memory can be measured. `make hostile` sets HOSTILE_CASES=all: every
damage × every command.
"""

import os
import random
import resource
import shutil
import signal
import sys
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet  # noqa: F401 - imported once, before the forks
import pytest
from hostile_datasets import NO_FILES, damages, write_dataset, write_journal

from logitcask.schemas import cli

CASES, SEED = os.environ.get("HOSTILE_CASES", "60"), os.environ.get("HOSTILE_SEED", "0")
MAX_SECONDS = 5
MAX_BYTES = 500 << 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0 if CASES == "all" else 300)]

COMMANDS = {
    "inspect": ["inspect", "DS"],
    "inspect --deep": ["inspect", "DS", "--deep"],
    "inspect --window": ["inspect", "DS", "--window", "0"],
    "verify": ["verify", "DS"],
    "report": ["report", "DS", "--html", "HOME/out.html"],
    "select": ["select", "DS", "--source", "*a0*"],
    "forget": ["forget", "DS", "a0-0"],
    "compact": ["compact", "DS"],
    "merge": ["merge", "DS", "OTHER", "--out", "HOME/out"],
    "clean": ["clean", "DS", "--older-than", "0"],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a command ended."""

    status: int
    seconds: float
    new_bytes: int
    output: str


def run(words: list[str], output: Path) -> Outcome:
    before_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        descriptor = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(4 * MAX_SECONDS)
        try:
            status = cli.main(words)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    _, status, usage = os.wait4(child, 0)
    return Outcome(
        status=os.waitstatus_to_exitcode(status),
        seconds=min(time.monotonic() - begin, usage.ru_utime + usage.ru_stime),
        new_bytes=max(0, (usage.ru_maxrss << 10) - before_bytes),
        output=output.read_text(errors="replace"),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`ds`, `other`, and `home` with a file that nothing may touch."""
    place = tmp_path_factory.mktemp("hostile")
    for name in ("ds", "other"):
        write_dataset(place / name)
    write_journal(place / "ds")
    (place / "home").mkdir()
    for name in ("thesis.txt", "thesis.parquet", "thesis.json", ".tmp-thesis"):
        (place / "home" / name).write_text("precious\n")
    return place


def cases(place: Path) -> Iterator[tuple[str, list[str], str, object]]:
    """Every case, or a sample: half of it bad values in JSON, half of it bad lists and files that are no files."""
    every = [(name, words, what, damage) for what, damage in damages(place / "ds") for name, words in COMMANDS.items()]
    if CASES == "all":
        return iter(every)
    values = [case for case in every if ".json: " in case[2]]
    others = [case for case in every if ".json: " not in case[2] or case[2].rpartition(": ")[2] in NO_FILES]
    chosen, half = random.Random(int(SEED)), int(CASES) // 2
    return iter([*chosen.sample(values, half), *chosen.sample(others, half)])


def outside(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (place / "home").iterdir() if "thesis" in path.name}


def faults(outcome: Outcome, words: list[str]) -> Iterator[str]:
    if "Traceback" in outcome.output or outcome.status not in (0, 1, 2):
        yield f"status {outcome.status}: {outcome.output[-600:]}"
    if outcome.seconds > MAX_SECONDS:
        yield f"{outcome.seconds:.1f} s"
    if outcome.new_bytes > MAX_BYTES:
        yield f"{outcome.new_bytes >> 20} MB"
    controls = {one for one in outcome.output if unicodedata.category(one) in ("Cc", "Cf") and one not in "\n\t\r"}
    if controls:
        yield f"control characters {controls}"


def test_no_command_fails_without_a_name_or_touches_a_file_outside(place, tmp_path):
    precious, found, statuses = outside(place), [], []
    for number, (name, words, what, damage) in enumerate(cases(place)):
        work = tmp_path / str(number)
        work.mkdir()
        shutil.copytree(place / "ds", work / "ds")
        shutil.copytree(place / "home", work / "home")
        damage(work / "ds")
        places = {"DS": work / "ds", "OTHER": place / "other", "HOME": work / "home"}
        command = [word.replace(key, str(path)) for word in words for key, path in [_place(word, places)]]
        outcome = run(command, work / "output")
        statuses.append(outcome.status)
        now = [f"{name}, {what}: {fault}" for fault in faults(outcome, command)]
        if outside(work) != precious:
            now.append(f"{name}, {what}: changed a file outside")
        found += now
        print("\n".join(now), end="", flush=True)
        shutil.rmtree(work)
    print(f"\n{len(statuses):,} commands: {statuses.count(0):,} succeeded, {statuses.count(1):,} named a fault")
    assert not found, "\n".join(found)
    assert statuses.count(1) > len(statuses) / 4


def _place(word: str, places: dict[str, Path]) -> tuple[str, Path | str]:
    return next(((key, path) for key, path in places.items() if word == key or word.startswith(f"{key}/")), ("\0", ""))
