"""Which stored targets train the better student, and at what size: all arms share teacher, first weights and batches.

    python bench/experiment_quality.py [--teacher smollm] [--student pruned] [--seeds 5] [--json FILE]

A student is trained once for each arm and seed: the teacher without a fifth of its layers, or a small one from scratch.
In these few steps, the small one learns little more than token frequencies (its loss is printed next to the loss of the
frequencies alone). Within a seed, all arms start from equal weights and see equal batches, so their differences are
paired. Intervals are 95 % bootstrap intervals of the mean over seeds and held-out windows. The full KL is to the
recorded teacher itself. A share of the gain of full distillation over cross-entropy is printed only if the interval of
that gain excludes zero. Finished runs are stored, so that an interrupted experiment resumes.
"""

import argparse
import functools
import json
import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from experiment_arms import ARMS, Arm, RecordedLogits, schemes, write_dataset
from experiment_students import PRUNED, SCRATCH, SIZES, Recipe
from experiment_teacher import CACHE, RecordedTeacher, recorded_teacher, unigram_loss
from transformers import PreTrainedModel, TrainingArguments
from transformers.utils import logging as transformers_logging

from logitcask.schemas.fingerprints import fingerprint
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.evaluation.evaluate import evaluate
from logitcask.student.online.trainer import FullDistillationTrainer
from logitcask.student.training.trainer import SoftTargetTrainer

RESAMPLES = 10_000
METRICS = ("loss_nats", "full_kl_nats", "calibration_error")
REFERENCE, FULL = "cross-entropy", "full distillation, live"


class OneWindow:
    """A single window of a dataset, for `evaluate`."""

    def __init__(self, dataset: SoftTargetDataset, index: int) -> None:
        self._dataset, self._index = dataset, index
        self.vocab_size = dataset.vocab_size

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return self._dataset[self._index]


def train_and_measure(
    arm: Arm, seed: int, teacher: RecordedTeacher, urls: dict[str, str], recipe: Recipe
) -> dict[str, list[float]]:
    """Trains one student and measures it on each held-out window."""
    student = recipe.student(teacher, seed)
    with tempfile.TemporaryDirectory() as directory:
        options = {
            "args": TrainingArguments(
                output_dir=directory, max_steps=recipe.steps, per_device_train_batch_size=recipe.batch_windows,
                learning_rate=recipe.learning_rate, warmup_steps=recipe.steps // 10, lr_scheduler_type="cosine",
                weight_decay=0.1, adam_beta2=0.95, seed=seed, use_cpu=not torch.cuda.is_available(), report_to="none",
                save_strategy="no", disable_tqdm=True,
            ),
            "train_dataset": SoftTargetDataset(urls[arm.scheme or "adaptive"], "train"),
            "alpha": arm.alpha, "loss": arm.loss, "tokenizer": teacher.tokenizer,
        }  # fmt: skip
        if arm.scheme is None:
            FullDistillationTrainer(student, teacher=RecordedLogits(teacher, "train"), **options).train()
        else:
            SoftTargetTrainer(student, **options).train()
    return measure(student, urls["adaptive"], teacher)


def measure(student: PreTrainedModel, url: str, teacher: RecordedTeacher) -> dict[str, list[float]]:
    """Held-out metrics by window, and the calibration error of all; the full KL is to the recorded teacher."""
    held_out, rows = SoftTargetDataset(url, "held-out"), RecordedLogits(teacher, "held-out")
    by_window = [evaluate(student, OneWindow(held_out, i), teacher=rows) for i in range(len(held_out))]  # pyright: ignore[reportArgumentType]
    return {
        "loss_nats": [one.loss_nats for one in by_window],
        "full_kl_nats": [one.full_kl_nats for one in by_window],
        "calibration_error": [evaluate(student, held_out, batch_windows=4).calibration_error],
    }


def interval(values_SW: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over seeds and held-out windows; both are resampled.

    A small sample varies less than its population, so the percentiles are widened to those of Student's t with this
    number of seeds (Hesterberg 2015, "expanded percentile"): at five seeds 94 % of intervals cover instead of 85 %.
    """
    num_seeds, num_windows = values_SW.shape
    generator = np.random.default_rng(0)
    seeds = generator.integers(0, num_seeds, (RESAMPLES, num_seeds))
    windows = generator.integers(0, num_windows, (RESAMPLES, num_windows))
    means = np.take_along_axis(values_SW[seeds].mean(axis=1), windows, axis=1).mean(axis=1)
    share = NormalDist().cdf(-((num_seeds / (num_seeds - 1)) ** 0.5) * _t_quantile(num_seeds - 1))
    low, high = np.quantile(means, [share, 1 - share])
    return float(low), float(high)


@functools.cache
def _t_quantile(degrees_of_freedom: int) -> float:
    """The 97.5 % quantile of Student's t, to a hundredth; no installed library provides it."""
    return float(np.quantile(np.random.default_rng(0).standard_t(degrees_of_freedom, 1_000_000), 0.975))


def summarize(results: dict[str, dict[int, dict[str, list[float]]]], sizes: dict[str, float]) -> list[dict]:
    """A row for each arm: means, paired gains over cross-entropy with intervals, and shares of the whole gain."""
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in results.values())))
    columns = {
        arm: {name: np.array([by_seed[seed][name] for seed in seeds]) for name in METRICS}
        for arm, by_seed in results.items()
    }
    rows = []
    for arm in ARMS:
        size = sizes.get(arm.scheme or "") if arm.alpha else None  # cross-entropy reads tokens alone
        row: dict = {"arm": arm.name, "seeds": len(seeds), "bytes_a_token": size}
        for name in METRICS:
            gain = columns[REFERENCE][name] - columns[arm.name][name]
            whole_gain = columns[REFERENCE][name] - columns[FULL][name]
            row[name] = float(columns[arm.name][name].mean())
            row[f"{name}_gain"], row[f"{name}_gain_interval"] = float(gain.mean()), interval(gain)
            # A share is meaningful only if full distillation is better than cross-entropy.
            is_better = interval(whole_gain)[0] > 0
            row[f"{name}_share"] = float(gain.mean() / whole_gain.mean()) if is_better else None
        row["published_loss"], row["published_share"] = arm.published, arm.published_share
        rows.append(row)
    return rows


def print_table(rows: list[dict]) -> None:
    """Prints the rows as Markdown."""
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
    parser.add_argument("--student", default="pruned", choices=["pruned", "scratch"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="instead of the recipe's own")
    parser.add_argument("--json", type=Path, help="also write the values to this file")
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()
    recipe = PRUNED if options.student == "pruned" else SCRATCH
    recipe = replace(recipe, steps=options.steps or recipe.steps)
    teacher = recorded_teacher(options.teacher)
    by_name = schemes(teacher)
    urls = {name: write_dataset(teacher, scheme) for name, scheme in by_name.items()}
    sizes = {name: _bytes_a_token(url) for name, url in urls.items()}
    results: dict[str, dict[int, dict[str, list[float]]]] = {arm.name: {} for arm in ARMS}
    for seed in range(options.seeds):
        for arm in ARMS:
            results[arm.name][seed] = kept_run(arm, seed, teacher, urls, recipe)
            found = results[arm.name][seed]
            print(
                f"seed {seed}  {arm.name:<28}",
                {name: round(float(np.mean(found[name])), 4) for name in METRICS},
                flush=True,
            )
    rows = summarize(results, sizes)
    for name, scheme in by_name.items():
        print(f"{name}: {scheme.to_json()}, {sizes[name]:.1f} bytes per token")
    teacher_loss = evaluate(
        recipe.student(teacher, 0), SoftTargetDataset(urls["adaptive"], "held-out")
    ).teacher_loss_nats
    unigram = unigram_loss(teacher.windows, teacher.teacher.vocab_size)
    print(
        f"{recipe}\nheld-out loss of the teacher {teacher_loss:.3f}, of the training text's frequencies {unigram:.3f}"
    )
    print_table(rows)
    if options.json:
        found = {
            "recipe": asdict(recipe),
            "teacher_loss_nats": teacher_loss,
            "unigram_loss_nats": unigram,
            "rows": rows,
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def kept_run(
    arm: Arm, seed: int, teacher: RecordedTeacher, urls: dict[str, str], recipe: Recipe
) -> dict[str, list[float]]:
    """The metrics of a run; the run is made unless an equal one is stored."""
    dataset = Path(urls[arm.scheme or "adaptive"]).name
    determines = [asdict(arm), seed, asdict(recipe), asdict(SIZES), dataset, teacher.fingerprint()]
    kept = CACHE / "runs" / f"{fingerprint(determines)}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(train_and_measure(arm, seed, teacher, urls, recipe)))
        unfinished.rename(kept)
    return json.loads(kept.read_text())


def _bytes_a_token(url: str) -> float:
    summary = SoftTargetDataset(url, "train").snapshot.splits["train"]
    return summary.size_bytes / summary.num_positions


if __name__ == "__main__":
    main()
