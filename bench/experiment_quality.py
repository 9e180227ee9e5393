"""Which stored targets make the better student, at how many bytes: every arm from one teacher, weights and batches.

    python bench/experiment_quality.py [--teacher smollm] [--seeds 5] [--steps 60] [--json FILE]

A student from scratch is trained once for each arm and seed. Within a seed all arms start from equal weights and see
equal batches, so their differences are paired; intervals are 95 % bootstrap intervals of the mean over seeds. The full
KL is to the recorded teacher itself. A share of the way from cross-entropy to full distillation is printed only where
the interval of that whole way excludes zero. Finished runs are kept, so that an interrupted experiment goes on.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from experiment_arms import ARMS, Arm, RecordedRows, schemes, write_dataset
from experiment_teacher import CACHE, RecordedTeacher, recorded_teacher
from transformers import PreTrainedModel, TrainingArguments
from transformers.utils import logging as transformers_logging

from schemas.fingerprints import fingerprint
from student.dataset import SoftTargetDataset
from student.evaluation import evaluate
from student.init.scratch import ScratchSizes, random_student
from student.online.trainer import FullDistillationTrainer
from student.trainer import SoftTargetTrainer

SIZES = ScratchSizes(layers=2, width=96, heads=3, kv_heads=1, head_width=32, mlp_width=256)
BATCH_WINDOWS, LEARNING_RATE = 4, 3e-3
RESAMPLES = 10_000
FIGURES = ("loss_nats", "full_kl_nats", "calibration_error")
REFERENCE, FULL = "cross-entropy", "full distillation, live"


def train_and_measure(
    arm: Arm,
    seed: int,
    teacher: RecordedTeacher,
    urls: dict[str, str],
    *,
    steps: int,
    batch_windows: int = BATCH_WINDOWS,
    learning_rate: float = LEARNING_RATE,
) -> dict[str, float]:
    """Trains one student and measures it on the held-out windows."""
    student = random_student(SIZES.config(teacher.teacher.vocab_size, teacher.tokenizer), seed)
    with tempfile.TemporaryDirectory() as directory:
        options = {
            "args": TrainingArguments(
                output_dir=directory, max_steps=steps, per_device_train_batch_size=batch_windows,
                learning_rate=learning_rate, warmup_steps=steps // 10, lr_scheduler_type="cosine", weight_decay=0.1,
                adam_beta2=0.95, seed=seed, use_cpu=not torch.cuda.is_available(), report_to="none",
                save_strategy="no", disable_tqdm=True,
            ),
            "train_dataset": SoftTargetDataset(urls[arm.scheme or "adaptive"], "train"),
            "alpha": arm.alpha, "loss": arm.loss, "tokenizer": teacher.tokenizer,
        }  # fmt: skip
        if arm.scheme is None:
            FullDistillationTrainer(student, teacher=RecordedRows(teacher, "train"), **options).train()
        else:
            SoftTargetTrainer(student, **options).train()
    return measure(student, urls["adaptive"], teacher)


def measure(student: PreTrainedModel, url: str, teacher: RecordedTeacher) -> dict[str, float]:
    """Held-out figures; the full KL is to the recorded teacher."""
    held_out = SoftTargetDataset(url, "held-out")
    found = evaluate(student, held_out, batch_windows=4, teacher=RecordedRows(teacher, "held-out"))
    return {name: getattr(found, name) for name in FIGURES}


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    picks = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def summarise(results: dict[str, dict[int, dict[str, float]]], sizes: dict[str, float]) -> list[dict]:
    """A row for each arm: means, paired differences from cross-entropy with their intervals, shares of the way."""
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in results.values())))
    columns = {
        arm: {name: np.array([by_seed[seed][name] for seed in seeds]) for name in FIGURES}
        for arm, by_seed in results.items()
    }
    rows = []
    for arm in ARMS:
        row: dict = {"arm": arm.name, "seeds": len(seeds), "bytes_a_token": sizes.get(arm.scheme or "")}
        for name in FIGURES:
            gain = columns[REFERENCE][name] - columns[arm.name][name]
            way = columns[REFERENCE][name] - columns[FULL][name]
            row[name] = float(columns[arm.name][name].mean())
            row[f"{name}_gain"], row[f"{name}_gain_interval"] = float(gain.mean()), interval(gain)
            low, high = interval(way)
            has_way = low > 0 or high < 0
            row[f"{name}_share"] = float(gain.mean() / way.mean()) if has_way else None
            row[f"{name}_share_interval"] = _share_interval(gain, way) if has_way else None
        row["published_loss"], row["published_share"] = arm.published, arm.published_share
        rows.append(row)
    return rows


def _share_interval(gain: np.ndarray, way: np.ndarray) -> tuple[float, float]:
    picks = np.random.default_rng(0).integers(0, len(gain), (RESAMPLES, len(gain)))
    low, high = np.percentile(gain[picks].mean(axis=1) / way[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def print_table(rows: list[dict]) -> None:
    """As Markdown."""
    print(
        "| arm | bytes/token | held-out loss | gain over CE [95 %] | share | full KL | ECE | published loss (share) |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        low, high = row["loss_nats_gain_interval"]
        size = f"{row['bytes_a_token']:.0f}" if row["bytes_a_token"] else "–"
        share = "–" if row["loss_nats_share"] is None else f"{row['loss_nats_share']:.0%}"
        published = "–" if row["published_loss"] is None else f"{row['published_loss']}"
        published += "" if row["published_share"] is None else f" ({row['published_share']:.0%})"
        gain = f"{row['loss_nats_gain']:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(
            f"| {row['arm']} | {size} | {row['loss_nats']:.3f} | {gain} | {share} | {row['full_kl_nats']:.3f} "
            f"| {row['calibration_error']:.3f} | {published} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="smollm", help="smollm, gemma, a directory, a .gguf file or a hub id")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()
    teacher = recorded_teacher(options.teacher)
    key = fingerprint([teacher.teacher.fingerprint, [part.content_hashes() for part in teacher.windows.values()]])
    home = CACHE / f"quality-{key[:12]}"
    by_name = schemes(teacher)
    urls = {name: write_dataset(teacher, scheme, home / name) for name, scheme in by_name.items()}
    sizes = {name: _bytes_a_token(url) for name, url in urls.items()}
    results: dict[str, dict[int, dict[str, float]]] = {arm.name: {} for arm in ARMS}
    for seed in range(options.seeds):
        for arm in ARMS:
            kept = home / "runs" / f"{options.steps}-{seed}-{fingerprint(arm.name)[:12]}.json"
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(train_and_measure(arm, seed, teacher, urls, steps=options.steps)))
            results[arm.name][seed] = json.loads(kept.read_text())
            print(f"seed {seed}  {arm.name:<28}", results[arm.name][seed], flush=True)
    rows = summarise(results, sizes)
    for name, scheme in by_name.items():
        print(f"{name}: {scheme.to_json()}, {sizes[name]:.1f} bytes a token")
    print_table(rows)
    if options.json:
        options.json.write_text(json.dumps({"steps": options.steps, "rows": rows}, indent=1) + "\n")


def _bytes_a_token(url: str) -> float:
    summary = SoftTargetDataset(url, "train").snapshot.splits["train"]
    return summary.size_bytes / summary.num_positions


if __name__ == "__main__":
    main()
