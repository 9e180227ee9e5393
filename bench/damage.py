"""What every command does with a damaged dataset: each kind of file, damaged in each way, and each command.

    make bench-damage

A small dataset of a random Gemma-2 is damaged in a copy, one file at a time. A command *refuses* if it fails with a
named error. Damage is *harmless* if the command does exactly what it does without it: the file is not read, or is made
again. Otherwise it was *silently used*. For `verify`, harmless means that it said nothing. Prints tables in Markdown.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from logitcask.schemas import cli
from logitcask.schemas.dataset.appends import claim_append
from logitcask.schemas.dataset.dataset import Dataset
from logitcask.schemas.dataset.identity import CorpusInfo, Identity
from logitcask.schemas.dataset.rules import Rule
from logitcask.schemas.maintenance.select_forget import forget_documents, select_rows

NUM_FLIPS = 4
COLUMNS = ("refuses", "harmless", "silently used", "traceback")

# Kind of file to the pattern that finds it; the first match in order is damaged, the second takes part in swaps.
FILES = {
    "configuration": "logitcask.json",
    "latest snapshot": "snapshots/000003.json",
    "older snapshot": "snapshots/000002.json",
    "mark of publication": "snapshots/000003.sha256",
    "list of shards": "snapshots/000003-*.parquet",
    "target shard": "targets/train/*.parquet",
    "target record": "targets/train/*.json",
    "token shard": "tokens/train/*.parquet",
    "token record": "tokens/train/*.json",
    "token-unit record": "tokens/units/*.json",
    "rejected documents": "rejected/*.jsonl",
    "pieces": "tokenizer/pieces.json",
    "claim of an append": "appends/*.json",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="What every command does with a damaged dataset.")
    parser.add_argument("--files", nargs="*", default=list(FILES), help="kinds of files")
    parser.add_argument("--json", type=Path, help="also write every run into this file")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as directory:
        runs = list(all_runs(Path(directory), args.files))
    if args.json:
        args.json.write_text(json.dumps(runs, indent=1))
    print(table(runs))
    used = [run for run in runs if run["outcome"] in ("silently used", "traceback")]
    for run in used:
        print(f"{run['outcome']}: {run['file']}, {run['damage']}, {run['command']}: {run['what']}")
    raise SystemExit(1 if used else 0)


def all_runs(directory: Path, kinds: list[str]) -> Iterator[dict[str, Any]]:
    """Runs each command on each damaged copy."""
    base = make_base(directory)
    commands = make_commands(base)
    copy = directory / "copy" / "cask"
    expected = {name: outcome_of(run, fresh(base / "cask", copy)) for name, run in commands.items()}
    for kind in kinds:
        for damage, change in damages(kind):
            for name, run in commands.items():
                fresh(base / "cask", copy)
                if not change(copy):
                    continue
                status, what, result = outcome_of(run, copy)
                found = classify(name, status, what, result == expected[name][2])
                yield {"file": kind, "damage": damage, "command": name, "outcome": found, "what": what}


def classify(command: str, status: int, what: str, is_equal: bool) -> str:
    if what.startswith("Traceback"):
        return "traceback"
    if status != 0:
        return "refuses"
    if command == "verify":
        return "harmless"
    return "harmless" if is_equal else "silently used"


def make_base(directory: Path) -> Path:
    """A teacher, a corpus, and two datasets: one with three snapshots, one to merge with."""
    from pydoc_data.topics import topics

    import sentencepiece
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    base = directory / "base"
    teacher, corpus, more = (base / name for name in ("teacher", "corpus", "more"))
    for one in (teacher, corpus, more):
        one.mkdir(parents=True)
    english = "\n\n".join(topics[name] for name in sorted(topics))
    (base / "english.txt").write_text(english[:200_000])
    sentencepiece.SentencePieceTrainer.train(
        input=str(base / "english.txt"), model_prefix=str(teacher / "tokenizer"), vocab_size=1000, pad_id=0, eos_id=1,
        bos_id=2, unk_id=3, byte_fallback=True, num_threads=1, minloglevel=2,
    )  # fmt: skip
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16, sliding_window=32, max_position_embeddings=512,
        pad_token_id=0, eos_token_id=1, bos_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(teacher)
    lines = [json.dumps({"id": f"doc-{n}", "text": english[300 * n : 300 * n + 300]}) for n in range(30)]
    (corpus / "a.jsonl").write_text("\n".join([*lines, '{"id": "bad", "text": 7}', "{broken"]) + "\n")
    lines = [json.dumps({"id": f"more-{n}", "text": english[30000 + 300 * n :][:300]}) for n in range(8)]
    (more / "c.jsonl").write_text("\n".join(lines))
    for corpus_of, out in ((corpus, "cask"), (more, "other")):
        status, what, _ = outcome_of(lambda out, corpus=corpus_of: annotate(base, corpus, out), base / out)
        assert status == 0, what
    cask = str(base / "cask")
    select_rows(cask, Rule(max_loss=9.0))
    forget_documents(cask, ["doc-3"])
    claim_append(cask, Identity(corpus=CorpusInfo(num_files=1, size_bytes=1, fingerprint="more")))
    return base


def annotate(base: Path, corpus: Path, out: Path, *options: str) -> int:
    settings = "--window 64 --shard-tokens 512 --batch-tokens 256 --held-out 0.2 --threads 1 --device cpu"
    words = ["annotate", str(corpus), "--teacher", str(base / "teacher"), "--out", str(out), *settings.split()]
    return cli.main([*words, *options])


def make_commands(base: Path) -> dict[str, Callable[[Path], int]]:
    """Name of each command to a function that runs it on a dataset; `train` reads all that training reads."""

    def read(out: Path) -> int:
        from logitcask.student.data.dataset import SoftTargetDataset

        for split in ("train", "held-out"):
            dataset = SoftTargetDataset(str(out), split)
            for index in range(len(dataset)):
                window = dataset[index]
                print(window.windows.token.tolist(), window.targets)
        return 0

    def compact(out: Path) -> int:
        shutil.rmtree(out / "appends", ignore_errors=True)
        return cli.main(["compact", str(out)])

    def merge(out: Path) -> int:
        return cli.main(["merge", str(out), str(base / "other"), "--out", str(out.parent / "merged")])

    return {
        "inspect": lambda out: cli.main(["inspect", str(out), "--json"]),
        "inspect --window": lambda out: cli.main(["inspect", str(out), "--window", "0", "--json"]),
        "train": read,
        "verify": lambda out: cli.main(["verify", str(out)]),
        "select": lambda out: cli.main(["select", str(out), "--min-loss", "0.5"]),
        "forget": lambda out: cli.main(["forget", str(out), "doc-5"]),
        "compact": compact,
        "merge": merge,
        "annotate": lambda out: annotate(base, base / "corpus", out),
    }


def outcome_of(run: Callable[[Path], int], out: Path) -> tuple[int, str, str]:
    """Status, message, and a digest of what the command printed and of what datasets then show."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            status = run(out)
        except ValueError as error:
            status = 1
            print(f"{type(error).__name__}: {error}", file=stderr)
        except SystemExit as stop:
            status = int(stop.code or 0)
        except Exception as error:
            return 1, f"Traceback: {type(error).__name__}: {error}", ""
    text = stderr.getvalue() + stdout.getvalue()
    what = text.strip().splitlines()[-1] if text.strip() else ""
    if "Traceback (most recent call last)" in text:
        what = f"Traceback: {what}"
    return status, what, shown(out, stdout.getvalue()) if status == 0 else ""


def shown(out: Path, printed: str) -> str:
    """What the command printed, without lines on speed, and every row that the dataset and a merged one show."""
    lines = [
        line for line in printed.splitlines() if "speed" not in line and "seconds" not in line and "note" not in line
    ]
    found = hashlib.sha256("\n".join(lines).encode())
    for one in (out, out.parent / "merged"):
        if not one.exists():
            continue
        try:
            for windows, targets in Dataset(str(one)).blocks():
                found.update(repr([windows.parts, windows.token.tolist(), windows.kind.tolist()]).encode())
                found.update(targets.head_ids.tobytes() + targets.head_log_probs.tobytes() + targets.log_tail.tobytes())
        except ValueError as error:
            # The next command refuses what this one did not read.
            return f"then refused: {type(error).__name__}" if "annotate" not in printed else printed
    return found.hexdigest()


def fresh(base: Path, copy: Path) -> Path:
    shutil.rmtree(copy.parent, ignore_errors=True)
    shutil.copytree(base, copy)
    return copy


def damages(kind: str) -> Iterator[tuple[str, Callable[[Path], bool]]]:
    """Ways to damage a file of a kind; each returns whether it could."""

    def of_file(change: Callable[[bytes], bytes]) -> Callable[[Path], bool]:
        def apply(out: Path) -> bool:
            path = sorted(out.glob(FILES[kind]))[0]
            path.write_bytes(change(path.read_bytes()))
            return True

        return apply

    def delete(out: Path) -> bool:
        sorted(out.glob(FILES[kind]))[0].unlink()
        return True

    def swap(out: Path) -> bool:
        paths = sorted(out.glob(FILES[kind])) + sorted(out.glob(FILES[kind].replace("3", "1").replace("2", "1")))
        if len(paths) < 2:
            return False
        first, second = paths[0].read_bytes(), paths[1].read_bytes()
        paths[0].write_bytes(second)
        paths[1].write_bytes(first)
        return True

    def older(out: Path) -> bool:
        paths = sorted(out.glob(FILES[kind].replace("3", "2"))) if "snapshots/000003" in FILES[kind] else []
        if not paths:
            return False
        shutil.copy(paths[0], sorted(out.glob(FILES[kind]))[0])
        return True

    rng = random.Random(kind)
    for _ in range(NUM_FLIPS):
        yield "flip", of_file(partial(flip, at=rng.random(), bit=rng.randrange(8)))
    yield "truncate", of_file(lambda data: data[: len(data) // 2])
    yield "empty", of_file(lambda data: b"")
    yield "garbage", of_file(lambda data: rng.randbytes(len(data)))
    yield "delete", delete
    yield "swap", swap
    yield "older version", older


def flip(data: bytes, at: float, bit: int) -> bytes:
    index = int(at * len(data))
    return data[:index] + bytes([data[index] ^ 1 << bit]) + data[index + 1 :]


def table(runs: list[dict[str, Any]]) -> str:
    """Counts by kind of file and kind of damage, and by command."""
    lines = []
    for key in ("file", "damage", "command"):
        counts: dict[str, Counter[str]] = {}
        for run in runs:
            counts.setdefault(run[key], Counter())[run["outcome"]] += 1
        lines += [f"| {key} | {' | '.join(COLUMNS)} |", f"|---{'|---:' * len(COLUMNS)}|"]
        lines += [f"| {name} | {' | '.join(str(one[column]) for column in COLUMNS)} |" for name, one in counts.items()]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
