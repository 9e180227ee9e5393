"""What a training step costs with stored targets, compared with plain cross-entropy and with a live teacher.

    python bench/train.py [--rounds 7] [--json FILE]

Each column takes whole steps of one student (forward, loss, backward, AdamW) on the same batches from synthetic shards,
one column after the other in every round. Ratios are medians over rounds of ratios within a round, so that a slow
machine slows both. Data wait is the time that a step waits for its batch: all of the reading without workers, and the
rest of it with one worker that reads ahead. The live teacher has random weights, and costs as much as a trained one.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from logitcask.schemas import DatasetWriter
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.format.metadata import TeacherInfo, TokenizerInfo
from logitcask.schemas.format.scheme import ThresholdScheme
from logitcask.schemas.format.targets import Kind, Part, Targets, Windows
from logitcask.student.data.collator import Batch, collate
from logitcask.student.data.dataset import EpochWindows, SoftTargetDataset
from logitcask.student.data.global_batches import GlobalBatches, RankBatches
from logitcask.student.data.order import WindowOrder
from logitcask.student.init.scratch import ScratchSizes, random_student
from logitcask.student.losses.full_kl import linear_full_kl
from logitcask.student.model.projection import output_projection, scored_hidden_states
from logitcask.student.online.teacher import LiveTeacher
from logitcask.student.training.batch_loss import soft_target_loss

TOKENIZER = TokenizerInfo(
    name="made up", fingerprint="f" * 32, vocabulary_fingerprint="a" * 32, vocab_size=0, bos_id=None, eos_id=None
)
HEAD_ENTRIES = 45  # the average number with p ≥ 1e-3 in English text


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """One comparison: a student, a live teacher for it, and a batch."""

    device: str
    dtype: str
    vocab_size: int
    window_tokens: int
    batch_windows: int
    student: ScratchSizes
    teacher: ScratchSizes


CPU = Size(
    device="cpu",
    dtype="float32",
    vocab_size=49_152,
    window_tokens=512,
    batch_windows=1,
    student=ScratchSizes(),
    teacher=ScratchSizes(
        layers=30, width=576, heads=9, kv_heads=3, mlp_width=1536, family="llama", feed_forward="swiglu"
    ),
)
GPU = Size(
    device="cuda",
    dtype="bfloat16",
    vocab_size=256_000,
    window_tokens=4096,
    batch_windows=2,
    student=ScratchSizes(layers=26, width=2304, heads=8, kv_heads=4, head_width=256, mlp_width=9216),
    teacher=ScratchSizes(layers=42, width=3584, heads=16, kv_heads=8, head_width=256, mlp_width=14336),
)


def write_shards(size: Size, out: Path, num_windows: int = 16) -> str:
    """A dataset of random tokens with heads of realistic width."""
    generator = np.random.default_rng(0)
    length, total = size.window_tokens, num_windows * size.window_tokens
    windows = Windows(
        token=generator.integers(0, size.vocab_size, total).astype(np.int32),
        kind=np.full(total, Kind.TRAIN, np.uint8),
        part=np.repeat(np.arange(num_windows, dtype=np.int32), length),
        window_offsets=np.arange(num_windows + 1) * length,
        parts=tuple(Part(id=str(number), source="made up", offset=0) for number in range(num_windows)),
    )
    teacher = TeacherInfo(
        name="random", fingerprint="e" * 32, vocab_size=size.vocab_size, dtype=size.dtype, architecture="none",
        num_parameters=0, licence=None, final_logit_softcap=None,
    )  # fmt: skip
    identity = Identity(tokenizer=TOKENIZER, teacher=teacher, scheme=ThresholdScheme(), window_tokens=length)
    with DatasetWriter(str(out), identity) as writer:
        writer.write(windows, _random_targets(generator, windows, size.vocab_size))
    return str(out)


def _random_targets(generator: np.random.Generator, windows: Windows, vocab_size: int) -> Targets:
    """Heads of 45 ids with probabilities ∝ 1/rank that hold 90 % of the mass."""
    total = windows.num_positions
    # Sums of random steps: ascending, without repeats.
    ids = np.cumsum(generator.integers(1, vocab_size // HEAD_ENTRIES, (total, HEAD_ENTRIES)), axis=1) - 1
    share = generator.permuted(np.tile(1 / np.arange(1, HEAD_ENTRIES + 1), (total, 1)), axis=1)
    log_probs = np.log(0.9 * share / share.sum(axis=1, keepdims=True)).astype(np.float32)
    has_label = windows.has_label()
    return Targets(
        head_ids=ids.astype(np.int32).ravel(),
        head_log_probs=log_probs.ravel(),
        head_offsets=np.arange(total + 1) * HEAD_ENTRIES,
        log_tail=np.full(total, np.log(0.1), np.float32),
        log_next=np.where(has_label, np.float32(-3.0), np.float32(np.nan)),
        entropy=np.full(total, 2.5, np.float32),
        top1_ids=None,
    )


def losses(size: Size, student: PreTrainedModel, live: LiveTeacher) -> dict[str, Callable[[Batch], torch.Tensor]]:
    """The columns: the loss of a batch, averaged over its positions."""

    def plain(batch: Batch) -> torch.Tensor:
        logits = student(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        return cross_entropy(logits.flatten(0, 1)[batch["scored_rows"]].float(), batch["labels"])

    def cached(batch: Batch) -> torch.Tensor:
        return soft_target_loss(student, batch, vocab_size=size.vocab_size, kl_weight=1 / len(batch["labels"])).loss

    def online(batch: Batch) -> torch.Tensor:
        projection = output_projection(student)
        return linear_full_kl(
            scored_hidden_states(student, batch), projection.weight, projection.bias, live.logits_of(batch),
            size.vocab_size, labels_T=batch["labels"], kl_weight=1 / len(batch["labels"]), softcap=projection.softcap,
        ).loss  # fmt: skip

    return {"plain cross-entropy": plain, "cached targets": cached, "live teacher, full KL": online}


def batches(size: Size, dataset: SoftTargetDataset, num_workers: int, number: int) -> Iterator[tuple[Batch, float]]:
    """Batches on the device, and the seconds that each was waited for."""
    global_batches = GlobalBatches(
        order=WindowOrder(sources=dataset.sources(), seed=0), batch_size_windows=size.batch_windows,
        micro_batch_windows=size.batch_windows, num_batches=number,
    )  # fmt: skip
    loader = iter(
        DataLoader(
            EpochWindows(dataset),
            batch_sampler=RankBatches(global_batches, 0),
            collate_fn=collate,
            num_workers=num_workers,
            pin_memory=size.device == "cuda",
        )
    )
    for _ in range(number):
        started = time.perf_counter()
        batch = next(loader)
        waited = time.perf_counter() - started
        yield {name: column.to(size.device, non_blocking=True) for name, column in batch.items()}, waited


def step_seconds(size: Size, loss: Callable[[Batch], torch.Tensor], batch: Batch, optimizer) -> float:
    """One whole step."""
    _synchronize(size)
    started = time.perf_counter()
    with torch.autocast(size.device, torch.bfloat16, enabled=size.dtype == "bfloat16"):
        value = loss(batch)
    value.backward()
    optimizer.step()
    optimizer.zero_grad()
    _synchronize(size)
    return time.perf_counter() - started


def _synchronize(size: Size) -> None:
    if size.device == "cuda":
        torch.cuda.synchronize()


def measure(size: Size, rounds: int) -> dict[str, float]:
    """Seconds of each column, ratios, and the share of a step on stored targets that waits for data."""
    with tempfile.TemporaryDirectory() as directory:
        dataset = SoftTargetDataset(write_shards(size, Path(directory)))
        student = random_student(size.student.config(size.vocab_size, TOKENIZER), 0).to(size.device)
        live = random_student(size.teacher.config(size.vocab_size, TOKENIZER), 1)
        live = live.to(size.device, getattr(torch, size.dtype)).eval().requires_grad_(False)
        columns = losses(size, student, LiveTeacher(live))
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
        seconds: dict[str, list[float]] = {name: [] for name in columns}
        waits: list[float] = []
        for number, (batch, waited) in enumerate(batches(size, dataset, 0, rounds + 1)):
            for name in list(columns)[:: -1 if number % 2 else 1]:
                taken = step_seconds(size, columns[name], batch, optimizer)
                if number:  # the first round warms up
                    seconds[name].append(taken)
            waits += [waited] if number else []
        ahead = _waits_with_a_worker(size, dataset, columns["cached targets"], optimizer, rounds)
    plain, cached, online = seconds.values()
    return {
        **{f"{name}, seconds": statistics.median(times) for name, times in seconds.items()},
        "cached / plain": _ratio(cached, plain),
        "live / cached": _ratio(online, cached),
        "data wait / step, no workers": statistics.median(waits) / statistics.median(cached),
        "data wait / step, one worker": ahead,
    }


def _waits_with_a_worker(size: Size, dataset: SoftTargetDataset, loss, optimizer, rounds: int) -> float:
    """Median wait divided by median step, with one process that reads ahead."""
    waits, steps = [], []
    for batch, waited in batches(size, dataset, 1, rounds + 1):
        steps.append(step_seconds(size, loss, batch, optimizer))
        waits.append(waited)
    return statistics.median(waits[1:]) / statistics.median(steps[1:])


def _ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the values to this file")
    options = parser.parse_args()
    found = []
    for size in [CPU, GPU] if torch.cuda.is_available() else [CPU]:
        print(json.dumps(asdict(size)), f"threads={torch.get_num_threads()} rounds={options.rounds}")
        figures = measure(size, options.rounds)
        for name, value in figures.items():
            print(f"{name:<36}{value:>10.4f}")
        found.append({"size": asdict(size), "figures": figures})
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
