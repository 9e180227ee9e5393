"""A job that is killed again and again, at random, until it is finished: nothing lost, nothing twice, nothing corrupt.

    python bench/soak.py --kills 200 --units 200

A tiny random teacher annotates English. Now a worker, now the driver is killed by SIGKILL, at a random moment and
whatever it is doing; a killed driver is started again, as a user would. Nine of ten kills wait until a worker has taken
a unit: else nearly all would hit processes that are still importing. Whenever the job is finished before all kills are
spent, its shards must be, byte for byte, those of a run that nobody disturbed, and it is begun anew. Prints a report,
and ends with status 1 if anything is not as it must be.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics

from schemas.dataset import load_snapshot
from schemas.verification import verify

WINDOW, SHARD_TOKENS = 64, 1024
# About what a shard's worth of text is; a little more text than units need does no harm.
TEXT_BYTES_OF_A_UNIT = 3000
# Most of the kills hit a worker: there are more of them, and clusters take workers away, not drivers.
SHARE_OF_DRIVERS = 0.2
SHARE_AT_ANY_MOMENT = 0.1
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
        begun_again: Target units whose forward pass was begun, beyond one for each.
        seconds: In all.
        faults: Whatever was lost, twice or corrupt.
    """

    killed_drivers: int = 0
    killed_workers: Counter[str] = field(default_factory=Counter)
    num_units: int = 0
    num_rounds: int = 0
    num_starts: int = 0
    begun_again: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def num_kills(self) -> int:
        return self.killed_workers.total() + self.killed_drivers

    def lines(self) -> list[str]:
        """For people."""
        points = ", ".join(f"{point} {number}" for point, number in sorted(self.killed_workers.items()))
        workers = self.killed_workers.total()
        return [
            f"kills      {self.num_kills}: {self.killed_drivers} drivers, {workers} workers ({points})",
            f"units      {self.num_units}, {self.num_rounds} times over, in {self.num_starts} starts",
            f"time       {self.seconds:,.0f} s",
            f"waste      {self.begun_again} units begun again; a worker costs at most one, a driver two",
            f"faults     {len(self.faults)} (lost, twice, or corrupt)",
            *(f"           {fault}" for fault in self.faults),
        ]


def make_teacher(directory: Path) -> None:
    """A random Gemma 2 of one layer with a SentencePiece vocabulary of its own."""
    import sentencepiece
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    directory.mkdir()
    (directory / "corpus.txt").write_text("\n".join(topics[name] for name in sorted(topics))[:100_000])
    sentencepiece.SentencePieceTrainer.train(
        input=str(directory / "corpus.txt"),
        model_prefix=str(directory / "tokenizer"),
        vocab_size=500,
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
        vocab_size=500,
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


def start(directory: Path, out: Path, *more: str) -> "subprocess.Popen[bytes]":
    """A driver, in a process group of its own."""
    words = ["annotate", str(directory / "a.jsonl"), "--teacher", str(directory / "teacher"), "--out", str(out)]
    words += ["--window", str(WINDOW), "--shard-tokens", str(SHARD_TOKENS), "--held-out", "0.1", "--device", "cpu"]
    # Whoever dies often enough with the same unit would be taken for its victim.
    words += ["--threads", "1", "--batch-tokens", "64", "--unit-attempts", "1000", "--attempts", "1000", *more]
    code = f"import sys; from schemas.cli import main; sys.exit(main({words!r}))"
    environment = {**os.environ, "LOGITCASK_FAULTS": str(directory / "points")}
    (directory / "points").mkdir(exist_ok=True)
    with (directory / "driver.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", code], stdout=log, stderr=log, start_new_session=True, env=environment
        )


def workers(group: int) -> list[int]:
    """The worker processes of a driver that live."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=,args=", "-g", str(group)], capture_output=True, text=True, check=False
    ).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [int(pid) for pid, state, words in rows if "pipeline.worker" in words and "Z" not in state]


def soak(directory: Path, num_kills: int, num_units: int, mean_seconds: float, seed: int) -> Report:
    """Kills until the number is reached, then lets the job end, and compares."""
    make_teacher(directory / "teacher")
    make_corpus(directory / "a.jsonl", num_units)
    undisturbed, out = directory / "undisturbed", directory / "out"
    if start(directory, undisturbed).wait():
        raise SystemExit((directory / "driver.log").read_text())
    rng, report = random.Random(seed), Report()
    report.num_units = len(list(undisturbed.glob("targets/*/*.parquet")))
    print(f"undisturbed: {report.num_units} units", flush=True)
    started_seconds = time.monotonic()
    while not report.faults and (report.num_kills < num_kills or not report.num_rounds):
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(directory / "points")
        _finish_under_fire(directory, out, num_kills, mean_seconds, rng, report)
        report.faults += faults(out, undisturbed)
        report.num_rounds += 1
        begun = [words[1] for words in _points_reached(directory) if words[0] == "forward"]
        report.begun_again += len(begun) - len(set(begun))
        report.seconds = time.monotonic() - started_seconds
        print("\n".join(report.lines()), flush=True)
    return report


def _finish_under_fire(
    directory: Path, out: Path, num_kills: int, mean_seconds: float, rng: random.Random, report: Report
) -> None:
    """Starts drivers until one of them has finished the job."""
    status = None
    while status != 0:
        report.num_starts += 1
        driver = start(directory, out, "--workers", "2")
        while driver.poll() is None and report.num_kills < num_kills:
            _wait_for_the_moment(directory, driver, mean_seconds, rng)
            _kill_somebody(directory, driver, rng, report)
        status = driver.wait()
        if status not in (0, -signal.SIGKILL):
            report.faults.append(f"a driver ended with {status}: {(directory / 'driver.log').read_text()[-2000:]}")
            return


def _wait_for_the_moment(
    directory: Path, driver: "subprocess.Popen[bytes]", mean_seconds: float, rng: random.Random
) -> None:
    if rng.random() >= SHARE_AT_ANY_MOMENT:
        while driver.poll() is None and not _at_work(directory, driver):
            time.sleep(_POLL_SECONDS)
    deadline_seconds = time.monotonic() + rng.expovariate(1 / mean_seconds)
    while driver.poll() is None and time.monotonic() < deadline_seconds:
        time.sleep(_POLL_SECONDS / 10)


def _at_work(directory: Path, driver: "subprocess.Popen[bytes]") -> bool:
    return not {words[2] for words in _points_reached(directory)}.isdisjoint(map(str, workers(driver.pid)))


def _points_reached(directory: Path) -> list[list[str]]:
    """Point, unit or file, and process, of all that was reached by now."""
    log = directory / "points/log"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def _kill_somebody(directory: Path, driver: "subprocess.Popen[bytes]", rng: random.Random, report: Report) -> None:
    if rng.random() < SHARE_OF_DRIVERS:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
            report.killed_drivers += 1
        return
    living = workers(driver.pid)
    if not living:
        return
    victim = rng.choice(living)
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return
    reached = [words[0] for words in _points_reached(directory) if words[2] == str(victim)]
    report.killed_workers[reached[-1] if reached else "starting"] += 1
    print(f"{report.num_kills} kills", flush=True)


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
    if snapshot.num_documents_in != snapshot.total().num_documents + snapshot.num_rejected:
        found.append("documents in are not annotated + rejected")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--units", type=int, default=200)
    parser.add_argument("--mean-seconds", type=float, default=0.5, help="exponentially distributed")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        report = soak(Path(temporary), arguments.kills, arguments.units, arguments.mean_seconds, arguments.seed)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
