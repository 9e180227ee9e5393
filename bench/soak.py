"""Kills a job at random until it is finished, and checks that nothing is lost, duplicated or corrupt.

    python bench/soak.py --kills 200 --units 200 --directory soak

The job annotates English text with a fake teacher (`tests/support/echo_scorer.py`), because importing `transformers` in
hundreds of processes takes hours, or, with `--real-teacher`, with a tiny random Gemma. SIGKILL hits one worker, all
workers or the driver, at random moments. A killed driver is restarted, as a user would do. Nine of ten kills wait until
a worker is annotating; otherwise nearly all kills would hit processes that are still importing, and the job would make
no progress. Each time the job finishes, its shards must be byte for byte those of an undisturbed run; while kills
remain, it then starts again from the beginning. The exit status is 1 if a check fails.

The report in the directory is updated after each kill. The soak itself may be killed; the same command resumes it. All
its processes are in its own process group: stop or continue that group to pause the soak without side effects.
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
# About the text of one shard; slightly more text than the units need is harmless.
TEXT_BYTES_PER_UNIT = 3000
# Most kills hit workers: there are more of them, and clusters preempt workers, not drivers.
SHARE_OF_DRIVERS = 0.1
SHARE_AT_ANY_MOMENT = 0.1
# A preempted machine loses all its workers. (Starting workers takes most of the time of this test.)
SHARE_OF_HOSTS = 0.7
_POLL_SECONDS = 0.05


@dataclass(kw_only=True, slots=True)
class Report:
    """The kills, and the state of the job.

    Attributes:
        killed_drivers: Number of killed drivers.
        killed_workers: Number of killed workers by the last fault point that they reached (`schemas.fault_points`).
        num_units: Number of units of the job.
        num_rounds: Number of times that the job was finished and checked.
        num_starts: Number of started drivers.
        begun_again: In each round, the number of forward passes of target units beyond one per unit.
        seconds: Total time.
        faults: All that was lost, duplicated or corrupt.
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
        """The lines of the human-readable report."""
        points = ", ".join(f"{point} {number}" for point, number in sorted(self.killed_workers.items()))
        workers = self.num_kills - self.killed_drivers
        return [
            f"kills      {self.num_kills}: {self.killed_drivers} drivers, {workers} workers ({points})",
            f"units      {self.num_units}, finished {self.num_rounds} times, in {self.num_starts} starts",
            f"time       {self.seconds:,.0f} s",
            f"waste      {sum(self.begun_again)} units started again; per killed worker at most one, per driver two",
            f"faults     {len(self.faults)} (lost, duplicated or corrupt)",
            *(f"           {fault}" for fault in self.faults),
        ]


def make_teacher(directory: Path) -> None:
    """Saves a random Gemma 2 of one layer with its own SentencePiece vocabulary."""
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
    """Writes documents of 300 characters, enough for `num_units` units."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    num_bytes = num_units * TEXT_BYTES_PER_UNIT
    text = (text * (num_bytes // len(text) + 1))[:num_bytes]
    lines = [json.dumps({"text": text[start : start + 300]}) for start in range(0, len(text), 300)]
    file.write_text("\n".join(lines))


def start_driver(directory: Path, out: Path, *more: str, is_real: bool) -> "subprocess.Popen[bytes]":
    """Starts a driver."""
    arguments = ["annotate", str(directory / "a.jsonl"), "--teacher", str(directory / "teacher"), "--out", str(out)]
    arguments += ["--window", str(WINDOW), "--shard-tokens", str(SHARD_TOKENS), "--held-out", "0.1", "--device", "cpu"]
    # Many attempts: units must not be quarantined because of the kills.
    arguments += ["--threads", "1", "--batch-tokens", "64", "--unit-attempts", "1000", "--attempts", "1000", *more]
    code = f"from logitcask.schemas.cli import console; console({arguments!r})"
    environment = {**os.environ, "LOGITCASK_FAULTS": str(directory / "points")}
    if not is_real:
        environment["PYTHONPATH"] = echo_scorer.processes_with_it(directory / "site")
    (directory / "points").mkdir(exist_ok=True)
    with (directory / "driver.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log, env=environment)


class Soak:
    """A job that is killed at random; its directory holds the full state of the soak.

    Attributes:
        directory: Contains the teacher, the corpus, both outputs and the report.
        report: The current report.
    """

    def __init__(self, directory: Path, num_kills: int, mean_seconds: float, seed: int, *, is_real: bool) -> None:
        self.directory = directory
        self._is_real = is_real
        self.report = self._read_report()
        self._num_kills, self._mean_seconds = num_kills, mean_seconds
        self._rng = random.Random(f"{seed} {self.report.num_kills}")
        self._noted_seconds = time.monotonic()

    def run(self, num_units: int) -> Report:
        """Kills until the number of kills is reached, lets the job finish, and compares its output."""
        if not self.report.num_units:
            self._prepare(num_units)
        while not self.report.faults and (self.report.num_kills < self._num_kills or not self.report.num_rounds):
            self._finish_despite_kills()
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
        """Makes the inputs and the undisturbed run."""
        make_teacher(self.directory / "teacher")
        make_corpus(self.directory / "a.jsonl", num_units)
        if start_driver(self.directory, self._undisturbed, is_real=self._is_real).wait():
            raise SystemExit((self.directory / "driver.log").read_text())
        if faults(self._undisturbed, self._undisturbed):
            raise SystemExit("\n".join(faults(self._undisturbed, self._undisturbed)))
        (self.directory / "points/log").unlink()
        self.report.num_units = len(list(self._undisturbed.glob("targets/*/*.parquet")))
        self._note()
        print(f"undisturbed: {self.report.num_units} units in {self.report.seconds:.0f} s", flush=True)

    def _finish_despite_kills(self) -> None:
        """Starts drivers until one of them finishes the job."""
        status = None
        while status != 0 and not self.report.faults:
            self.report.num_starts += 1
            driver = start_driver(self.directory, self._out, "--workers", "2", is_real=self._is_real)
            while driver.poll() is None and self.report.num_kills < self._num_kills:
                self._wait_for_random_moment(driver)
                self._kill_driver_or_workers(driver)
            status = driver.wait()
            if status not in (0, -signal.SIGKILL):
                log = (self.directory / "driver.log").read_text()
                self.report.faults.append(f"a driver ended with {status}: {log[-2000:]}")

    def _wait_for_random_moment(self, driver: "subprocess.Popen[bytes]") -> None:
        if self._rng.random() >= SHARE_AT_ANY_MOMENT:
            while driver.poll() is None and not self._is_annotating(driver):
                time.sleep(_POLL_SECONDS)
        deadline_seconds = time.monotonic() + self._rng.expovariate(1 / self._mean_seconds)
        while driver.poll() is None and time.monotonic() < deadline_seconds:
            time.sleep(_POLL_SECONDS / 10)

    def _is_annotating(self, driver: "subprocess.Popen[bytes]") -> bool:
        """Whether a running worker of this driver is annotating."""
        annotating = {line[2] for line in self._points_reached() if line[0] == "forward"}
        return any(_parent(pid) == driver.pid for pid in annotating)

    def _points_reached(self) -> list[list[str]]:
        """The point, the unit or file, and the process of each fault point reached so far."""
        log = self.directory / "points/log"
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    def _kill_driver_or_workers(self, driver: "subprocess.Popen[bytes]") -> None:
        if self._rng.random() < SHARE_OF_DRIVERS:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
                self.report.killed_drivers += 1
                self._note()
            return
        pids = workers(driver)
        if pids and self._rng.random() >= SHARE_OF_HOSTS:
            pids = [self._rng.choice(pids)]
        for pid in pids:
            self._kill_worker(pid)

    def _kill_worker(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        reached = [line[0] for line in self._points_reached() if line[2] == str(pid)]
        point = reached[-1] if reached else "starting"
        self.report.killed_workers[point] = self.report.killed_workers.get(point, 0) + 1
        self._note()

    def _note(self) -> None:
        """Updates the report."""
        now_seconds = time.monotonic()
        self.report.seconds += now_seconds - self._noted_seconds
        self._noted_seconds = now_seconds
        begun = Counter(line[1] for line in self._points_reached() if line[0] == "forward")
        self.report.begun_again[self.report.num_rounds :] = [begun.total() - len(begun)]
        self._write()

    def _write(self) -> None:
        storage.replace(str(self.directory / "report.json"), json.dumps(asdict(self.report), indent=1).encode())
        storage.replace(str(self.directory / "report.txt"), "\n".join([*self.report.lines(), ""]).encode())

    def _read_report(self) -> Report:
        file = self.directory / "report.json"
        return Report(**json.loads(file.read_bytes())) if file.exists() else Report()


def workers(driver: "subprocess.Popen[bytes]") -> list[int]:
    """The running worker processes of a driver."""
    command = ["ps", "-o", "pid=,stat=,args=", "--ppid", str(driver.pid)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [int(pid) for pid, state, args in rows if "logitcask.pipeline.runners.worker" in args and "Z" not in state]


def _parent(pid: str) -> int | None:
    """The parent of a running process, None if the process has ended."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(parent) if state != "Z" else None


def faults(out: Path, undisturbed: Path) -> list[str]:
    """All that is lost, duplicated or different from the undisturbed run."""
    found = [f"{fault.path}: {fault.what}" for fault in verify(str(out)).faults]
    ours, theirs = (
        {path.relative_to(root): path for path in root.glob("t*/*/*.parquet")} for root in (out, undisturbed)
    )
    found += [f"{path}: missing" for path in sorted(theirs.keys() - ours.keys())]
    found += [f"{path}: belongs to no unit" for path in sorted(ours.keys() - theirs.keys())]
    both = sorted(ours.keys() & theirs.keys())
    found += [f"{path}: different bytes" for path in both if ours[path].read_bytes() != theirs[path].read_bytes()]
    snapshot, expected = load_snapshot(str(out)), load_snapshot(str(undisturbed))
    if not snapshot.complete or snapshot.shards_digest != expected.shards_digest:
        found.append(f"snapshot {snapshot.number}: incomplete, or different from the undisturbed run")
    num_lines = len((out.parent / "a.jsonl").read_text().splitlines())
    if not num_lines == snapshot.num_documents_in == snapshot.total().num_documents + snapshot.num_rejected:
        found.append("the documents of the corpus are not the annotated and the rejected documents")
    clean(str(out), older_than=timedelta(0), dry_run=False)
    stray = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    stray -= {path.relative_to(undisturbed) for path in undisturbed.rglob("*") if path.is_file()}
    return found + [f"{path}: left behind" for path in sorted(stray) if path.parts[0] != "snapshots"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="number of kills")
    parser.add_argument("--units", type=int, default=200, help="approximate number of units of the job")
    parser.add_argument("--mean-seconds", type=float, default=0.2, help="mean wait before a kill, exponential")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, required=True, help="working directory; an existing one is resumed")
    parser.add_argument("--real-teacher", action="store_true", help="takes hours; use --mean-seconds 1")
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
