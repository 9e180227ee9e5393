"""A job that is killed again and again, at random, until it is finished: nothing lost, nothing twice, nothing corrupt.

    python bench/soak.py --kills 200 --units 200 --directory soak

English is annotated by a teacher that costs nothing (`tests/support/echo_scorer.py`: to import `transformers` in some
hundreds of processes takes hours) or, with `--real-teacher`, by a tiny random Gemma. Now a worker, now all workers, now
the driver is killed by SIGKILL, at a random moment and whatever it is doing; a killed driver is started again, as a
user would. Nine of ten kills wait until a worker is annotating: else nearly all would hit processes that are still
importing, and the job would never get on. Whenever it is finished before all kills are spent, its shards must be, byte
for byte, those of a run that nobody disturbed, and it is begun anew. Ends with status 1 if anything is not as it must
be.

The report is kept in the directory and is up to date after each kill; the soak itself may be killed, and goes on with
the same command. All that it starts is of its own process group: stop and continue that, and nothing is out of time.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from pydoc_data.topics import topics

sys.path.append(str(Path(__file__).parents[1] / "tests/support"))

import echo_scorer

from logitcask.pipeline.clean import clean
from logitcask.schemas import storage
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.maintenance.verify import verify

WINDOW, SHARD_TOKENS = 64, 1024
# About what a shard's worth of text is; a little more text than units need does no harm.
TEXT_BYTES_OF_A_UNIT = 3000
# Most of the kills hit a worker: there are more of them, and clusters take workers away, not drivers.
SHARE_OF_DRIVERS = 0.1
SHARE_AT_ANY_MOMENT = 0.1
# A machine that is taken away takes all its workers with it. (And starting them is what takes this test's time.)
SHARE_OF_HOSTS = 0.7
_POLL_SECONDS = 0.05


@dataclass(kw_only=True, slots=True)
class Report:
    """What was done to the job, and what became of it.

    Attributes:
        killed_drivers: How many.
        killed_workers: How many at each point: the last that the worker had reached (`schemas.fault_points`).
        num_units: Units of the job.
        num_rounds: How often the job was finished and looked at.
        num_starts: Drivers started.
        begun_again: Target units whose forward pass was begun, beyond one for each, in each round.
        seconds: In all.
        faults: Whatever was lost, twice or corrupt.
    """

    killed_drivers: int = 0
    killed_workers: dict[str, int] = field(default_factory=dict)
    num_units: int = 0
    num_rounds: int = 0
    num_starts: int = 0
    begun_again: list[int] = field(default_factory=list)
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def num_kills(self) -> int:
        return sum(self.killed_workers.values()) + self.killed_drivers

    def lines(self) -> list[str]:
        """For people."""
        points = ", ".join(f"{point} {number}" for point, number in sorted(self.killed_workers.items()))
        workers = self.num_kills - self.killed_drivers
        return [
            f"kills      {self.num_kills}: {self.killed_drivers} drivers, {workers} workers ({points})",
            f"units      {self.num_units}, {self.num_rounds} times over, in {self.num_starts} starts",
            f"time       {self.seconds:,.0f} s",
            f"waste      {sum(self.begun_again)} units begun again; a worker costs at most one, a driver two",
            f"faults     {len(self.faults)} (lost, twice, or corrupt)",
            *(f"           {fault}" for fault in self.faults),
        ]


def make_teacher(directory: Path) -> None:
    """A random Gemma 2 of one layer with a SentencePiece vocabulary of its own."""
    import sentencepiece
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    directory.mkdir()
    (directory / "corpus.txt").write_text("\n".join(topics[name] for name in sorted(topics))[:200_000])
    sentencepiece.SentencePieceTrainer.train(
        input=str(directory / "corpus.txt"),
        model_prefix=str(directory / "tokenizer"),
        vocab_size=1000,
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        num_threads=1,
        minloglevel=2,
    )
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=1000,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        initializer_range=0.3,
    )
    Gemma2ForCausalLM(config).save_pretrained(directory)


def make_corpus(file: Path, num_units: int) -> None:
    """Documents of a few hundred bytes, enough for so many units."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    num_bytes = num_units * TEXT_BYTES_OF_A_UNIT
    wanted = (text * (num_bytes // len(text) + 1))[:num_bytes]
    lines = [json.dumps({"text": wanted[start : start + 300]}) for start in range(0, len(wanted), 300)]
    file.write_text("\n".join(lines))


def start(directory: Path, out: Path, *more: str, is_real: bool) -> "subprocess.Popen[bytes]":
    """A driver."""
    words = ["annotate", str(directory / "a.jsonl"), "--teacher", str(directory / "teacher"), "--out", str(out)]
    words += ["--window", str(WINDOW), "--shard-tokens", str(SHARD_TOKENS), "--held-out", "0.1", "--device", "cpu"]
    # Whoever dies often enough with the same unit would be taken for its victim.
    words += ["--threads", "1", "--batch-tokens", "64", "--unit-attempts", "1000", "--attempts", "1000", *more]
    code = f"from logitcask.schemas.cli import console; console({words!r})"
    environment = {**os.environ, "LOGITCASK_FAULTS": str(directory / "points")}
    if not is_real:
        environment["PYTHONPATH"] = echo_scorer.processes_with_it(directory / "site")
    (directory / "points").mkdir(exist_ok=True)
    with (directory / "driver.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log, env=environment)


class Soak:
    """A job under fire, in a directory that holds all there is to know of it.

    Attributes:
        directory: With teacher, corpus, both outputs and the report.
        report: As it stands.
    """

    def __init__(self, directory: Path, num_kills: int, mean_seconds: float, seed: int, *, is_real: bool) -> None:
        self.directory = directory
        self._is_real = is_real
        self.report = self._read_report()
        self._num_kills, self._mean_seconds = num_kills, mean_seconds
        self._rng = random.Random(f"{seed} {self.report.num_kills}")
        self._noted_seconds = time.monotonic()

    def run(self, num_units: int) -> Report:
        """Kills until the number is reached, then lets the job end, and compares."""
        if not self.report.num_units:
            self._prepare(num_units)
        while not self.report.faults and (self.report.num_kills < self._num_kills or not self.report.num_rounds):
            self._finish_under_fire()
            self.report.faults += faults(self._out, self._undisturbed)
            self._note()
            if not self.report.faults:
                self.report.num_rounds += 1
                shutil.rmtree(self._out)
                (self.directory / "points/log").unlink()
                self._write()
        return self.report

    @property
    def _out(self) -> Path:
        return self.directory / "out"

    @property
    def _undisturbed(self) -> Path:
        return self.directory / "undisturbed"

    def _prepare(self, num_units: int) -> None:
        """The run that nobody disturbs."""
        make_teacher(self.directory / "teacher")
        make_corpus(self.directory / "a.jsonl", num_units)
        if start(self.directory, self._undisturbed, is_real=self._is_real).wait():
            raise SystemExit((self.directory / "driver.log").read_text())
        if faults(self._undisturbed, self._undisturbed):
            raise SystemExit("\n".join(faults(self._undisturbed, self._undisturbed)))
        (self.directory / "points/log").unlink()
        self.report.num_units = len(list(self._undisturbed.glob("targets/*/*.parquet")))
        self._note()
        print(f"undisturbed: {self.report.num_units} units in {self.report.seconds:.0f} s", flush=True)

    def _finish_under_fire(self) -> None:
        """Starts drivers until one of them has finished the job."""
        status = None
        while status != 0 and not self.report.faults:
            self.report.num_starts += 1
            driver = start(self.directory, self._out, "--workers", "2", is_real=self._is_real)
            while driver.poll() is None and self.report.num_kills < self._num_kills:
                self._wait_for_the_moment(driver)
                self._kill_somebody(driver)
            status = driver.wait()
            if status not in (0, -signal.SIGKILL):
                log = (self.directory / "driver.log").read_text()
                self.report.faults.append(f"a driver ended with {status}: {log[-2000:]}")

    def _wait_for_the_moment(self, driver: "subprocess.Popen[bytes]") -> None:
        if self._rng.random() >= SHARE_AT_ANY_MOMENT:
            while driver.poll() is None and not self._is_at_work(driver):
                time.sleep(_POLL_SECONDS)
        deadline_seconds = time.monotonic() + self._rng.expovariate(1 / self._mean_seconds)
        while driver.poll() is None and time.monotonic() < deadline_seconds:
            time.sleep(_POLL_SECONDS / 10)

    def _is_at_work(self, driver: "subprocess.Popen[bytes]") -> bool:
        """Whether a worker of this driver that lives is annotating."""
        annotating = {words[2] for words in self._points_reached() if words[0] == "forward"}
        return any(_parent(pid) == driver.pid for pid in annotating)

    def _points_reached(self) -> list[list[str]]:
        """Point, unit or file, and process, of all that was reached by now."""
        log = self.directory / "points/log"
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    def _kill_somebody(self, driver: "subprocess.Popen[bytes]") -> None:
        if self._rng.random() < SHARE_OF_DRIVERS:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
                self.report.killed_drivers += 1
                self._note()
            return
        living = workers(driver)
        if living and self._rng.random() >= SHARE_OF_HOSTS:
            living = [self._rng.choice(living)]
        for pid in living:
            self._kill_worker(pid)

    def _kill_worker(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        reached = [words[0] for words in self._points_reached() if words[2] == str(pid)]
        point = reached[-1] if reached else "starting"
        self.report.killed_workers[point] = self.report.killed_workers.get(point, 0) + 1
        self._note()

    def _note(self) -> None:
        """Brings the report up to date."""
        now_seconds = time.monotonic()
        self.report.seconds += now_seconds - self._noted_seconds
        self._noted_seconds = now_seconds
        begun = Counter(words[1] for words in self._points_reached() if words[0] == "forward")
        self.report.begun_again[self.report.num_rounds :] = [begun.total() - len(begun)]
        self._write()

    def _write(self) -> None:
        storage.replace(str(self.directory / "report.json"), json.dumps(asdict(self.report), indent=1).encode())
        storage.replace(str(self.directory / "report.txt"), "\n".join([*self.report.lines(), ""]).encode())

    def _read_report(self) -> Report:
        file = self.directory / "report.json"
        return Report(**json.loads(file.read_bytes())) if file.exists() else Report()


def workers(driver: "subprocess.Popen[bytes]") -> list[int]:
    """The worker processes of a driver that live."""
    words = ["ps", "-o", "pid=,stat=,args=", "--ppid", str(driver.pid)]
    listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [int(pid) for pid, state, words in rows if "logitcask.pipeline.runners.worker" in words and "Z" not in state]


def _parent(pid: str) -> int | None:
    """The parent of a process that lives."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(parent) if state != "Z" else None


def faults(out: Path, undisturbed: Path) -> list[str]:
    """Whatever is lost, twice or other than in the undisturbed run."""
    found = [f"{fault.path}: {fault.what}" for fault in verify(str(out)).faults]
    ours, theirs = (
        {path.relative_to(root): path for path in root.glob("t*/*/*.parquet")} for root in (out, undisturbed)
    )
    found += [f"{path}: missing" for path in sorted(theirs.keys() - ours.keys())]
    found += [f"{path}: of no unit" for path in sorted(ours.keys() - theirs.keys())]
    both = sorted(ours.keys() & theirs.keys())
    found += [f"{path}: other bytes" for path in both if ours[path].read_bytes() != theirs[path].read_bytes()]
    snapshot, expected = load_snapshot(str(out)), load_snapshot(str(undisturbed))
    if not snapshot.complete or snapshot.shards_digest != expected.shards_digest:
        found.append(f"snapshot {snapshot.number}: not the undisturbed one")
    num_lines = len((out.parent / "a.jsonl").read_text().splitlines())
    if not num_lines == snapshot.num_documents_in == snapshot.total().num_documents + snapshot.num_rejected:
        found.append("the corpus's documents are not annotated + rejected")
    clean(str(out), older_than=timedelta(0), dry_run=False)
    stray = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    stray -= {path.relative_to(undisturbed) for path in undisturbed.rglob("*") if path.is_file()}
    return found + [f"{path}: left behind" for path in sorted(stray) if path.parts[0] != "snapshots"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--units", type=int, default=200)
    parser.add_argument("--mean-seconds", type=float, default=0.2, help="exponentially distributed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, required=True, help="where it works, and goes on; may be new")
    parser.add_argument("--real-teacher", action="store_true", help="for hours, and --mean-seconds 1")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    soak = Soak(
        arguments.directory.absolute(),
        arguments.kills,
        arguments.mean_seconds,
        arguments.seed,
        is_real=arguments.real_teacher,
    )
    report = soak.run(arguments.units)
    print("\n".join(report.lines()))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
