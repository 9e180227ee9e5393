"""Whether soft targets still teach when a small corpus is repeated: equal steps as 1, 4 and 16 epochs of a corpus.

    python bench/experiment_replay.py [--teacher smollm] [--seeds 5] [--json FILE] [--plot FILE.svg]

The whole corpus once, a quarter of it four times, and a sixteenth sixteen times: equal steps, equal tokens, equal first
weights. Cross-entropy is compared with distillation from stored targets (adaptive + other). Each seed chooses the
quarter or sixteenth. Intervals are 95 % bootstrap intervals over seeds and held-out windows.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from experiment_arms import ARMS, Arm, write_dataset
from experiment_quality import interval, kept_run
from experiment_students import SCRATCH
from experiment_teacher import RecordedTeacher, recorded_teacher
from transformers.utils import logging as transformers_logging

from logitcask.schemas.format.scheme import ThresholdScheme

EPOCHS = (1, 4, 16)
DISTILLED = "adaptive + other (default)"
LEARNING_RATE = 2e-3


def shortened(teacher: RecordedTeacher, epochs: int, seed: int) -> RecordedTeacher:
    """The same teacher on one part of the corpus, which the seed chooses."""
    windows = teacher.windows["train"]
    size = windows.num_windows // epochs
    start = int(np.random.default_rng(seed).integers(0, windows.num_windows - size + 1))
    rows = slice(*windows.window_offsets[[start, start + size]])
    return replace(
        teacher,
        windows={**teacher.windows, "train": windows.select(start, start + size)},
        logits={**teacher.logits, "train": teacher.logits["train"][rows]},
    )


def losses(arm: Arm, epochs: int, seeds: int, teacher: RecordedTeacher) -> np.ndarray:
    """Held-out loss of each seed and window, [S, W]; finished runs are not repeated."""
    recipe = replace(SCRATCH, steps=teacher.windows["train"].num_windows, batch_windows=1, learning_rate=LEARNING_RATE)
    found = []
    for seed in range(seeds):
        part = shortened(teacher, epochs, seed)
        run = kept_run(arm, seed, part, {"adaptive": write_dataset(part, ThresholdScheme())}, recipe)
        found.append(run["loss_nats"])
        print(f"{arm.name:<28} {epochs:>2} epochs  seed {seed}  {np.mean(found[-1]):.4f}", flush=True)
    return np.array(found)


def summarize(by_arm: dict[str, dict[int, np.ndarray]]) -> list[dict]:
    """A row for each number of epochs: losses, and the paired gain of distillation with its interval."""
    rows = []
    for epochs in EPOCHS:
        text, soft = by_arm[ARMS[0].name][epochs], by_arm[DISTILLED][epochs]
        rows.append(
            {
                "epochs": epochs,
                "cross_entropy": float(text.mean()),
                "cross_entropy_interval": interval(text),
                "distilled": float(soft.mean()),
                "distilled_interval": interval(soft),
                "gain": float((text - soft).mean()),
                "gain_interval": interval(text - soft),
            }
        )
    return rows


def plot(rows: list[dict], file: Path) -> None:
    """Held-out loss against epochs, one line for each way to learn."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "replay"
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, label in (("cross_entropy", "cross-entropy"), ("distilled", "cached distillation")):
        middle = np.array([row[name] for row in rows])
        bounds = np.array([row[f"{name}_interval"] for row in rows]).T
        axes.errorbar(EPOCHS, middle, yerr=np.abs(bounds - middle), marker="o", capsize=4, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(EPOCHS, [str(epochs) for epochs in EPOCHS])
    axes.set_xlabel("epochs (equal steps: the corpus shrinks as they grow)")
    axes.set_ylabel("held-out next-token loss, nats")
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without the date, so that equal values give equal files.
    figure.savefig(file, metadata={"Date": None})


def print_table(rows: list[dict]) -> None:
    """Prints the rows as Markdown."""
    print("| epochs | cross-entropy | cached distillation | gain [95 %] |\n|---|---|---|---|")
    for row in rows:
        low, high = row["gain_interval"]
        gain = f"{row['gain']:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(f"| {row['epochs']} | {row['cross_entropy']:.3f} | {row['distilled']:.3f} | {gain} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="smollm", help="smollm, gemma, a directory, a .gguf file or a hub id")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the values to this file")
    parser.add_argument("--plot", type=Path, help="draw the values into this file")
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()
    teacher = recorded_teacher(options.teacher)
    by_arm = {
        arm.name: {epochs: losses(replace(arm, scheme="adaptive"), epochs, options.seeds, teacher) for epochs in EPOCHS}
        for arm in ARMS
        if arm.name in (ARMS[0].name, DISTILLED)
    }
    rows = summarize(by_arm)
    print_table(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
