"""What annotation costs: tokens per second of the whole job, next to those of the teacher's bare forward pass.

    python bench/annotate.py --teacher gemma [--dtype bfloat16] [--windows 4] [--rounds 3] [--json FILE]
    python bench/annotate.py --teacher gemma2-2b-random --device cuda --dtype bfloat16 --windows 128

All columns process the same windows in one process and take turns, so that a slow machine slows all of them; ratios
are medians over rounds. *Bare forward* is the model's own `forward` up to its logits, at the batch size that is fastest
for it. *Annotate* is everything from the token shard to the committed target shard. *Eager chain* is
`logits.float().log_softmax(-1).topk(128)` after the bare forward. The second table shows heads alone, from one block of
logits. Memory is the peak above the model's own: resident on a CPU, allocated on a GPU.

A job measures vocabulary statistics in every 64th window of a shard. Few windows cannot show that share, so *annotate*
leaves it out. The additional time of such a window is measured separately, and *annotate, every 64th window measured*
combines both.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import torch
from memory import Peak, return_free_memory

from logitcask.pipeline.annotation import score_windows
from logitcask.pipeline.annotation.annotate_unit import AnnotationSpec, annotate_unit
from logitcask.pipeline.units.annotation_units import AnnotationUnit
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.schemas import storage
from logitcask.schemas.dataset.layout import shard_path
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.token_unit_record import TokenShard
from logitcask.schemas.format.metadata import ShardMetadata, TeacherInfo, TokenizerInfo
from logitcask.schemas.format.scheme import Scheme, ThresholdScheme, TopKScheme
from logitcask.schemas.format.targets import Part, Windows
from logitcask.schemas.format.writer import encode_shard
from logitcask.teacher.scoring.block_sums import Kernel, choose_kernel
from logitcask.teacher.scoring.heads import select_heads
from logitcask.teacher.scoring.huggingface import HuggingFaceTrunk
from logitcask.teacher.scoring.projection import rows_of_chunk
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import SCORERS
from logitcask.teacher.scoring.trunk_scorer import TrunkScorer
from logitcask.teacher.text.packing import Document, batches, pack_documents

WINDOW_TOKENS = 1024
RANDOM = "gemma2-2b-random"
# The eager chain holds two float32 tensors of all logits: 34 GB for 16 windows and a vocabulary of 256,000.
_MAX_EAGER_WINDOWS = 16
_measured_rows = score_windows.measured_rows
_HEAD_SCHEMES = {"adaptive, τ = 0.001": ThresholdScheme(), "k = 128": TopKScheme(k=128)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A teacher with windows to annotate.

    Attributes:
        scorer: The loaded teacher.
        windows: The windows of every column.
        spec: Settings of the job, except the output.
    """

    scorer: TrunkScorer
    windows: Windows
    spec: AnnotationSpec

    @property
    def model(self) -> Any:
        return self.scorer.trunk.model


def bare_forward(
    problem: Problem, batch_windows: int, then: Callable[[torch.Tensor], Any] = lambda logits: None
) -> None:
    """Computes the model's own logits of all windows, batch by batch, and passes them to `then`."""
    windows, model = problem.windows, problem.model
    longest = int(np.diff(windows.window_offsets).max())
    with torch.inference_mode():
        for start, stop in batches(windows.window_offsets, batch_windows * longest):
            batch = windows.select(start, stop)
            tokens = np.zeros((stop - start, int(np.diff(batch.window_offsets).max())), np.int64)
            positions = np.zeros_like(tokens)
            for row, (first, last) in enumerate(zip(batch.window_offsets[:-1], batch.window_offsets[1:], strict=True)):
                tokens[row, : last - first] = batch.token[first:last]
                positions[row, : last - first] = batch.position_ids()[first:last]
            inputs = {"input_ids": tokens, "position_ids": positions}
            device_inputs = {name: torch.from_numpy(values).to(model.device) for name, values in inputs.items()}
            then(model(**device_inputs, use_cache=False).logits)
    _synchronize(model.device)


def eager_chain(problem: Problem, batch_windows: int) -> None:
    """What common annotation scripts do, up to the entries of the heads."""
    bare_forward(problem, batch_windows, lambda logits: logits.float().log_softmax(-1).topk(128))


def annotate(problem: Problem, on_done: Callable[[UnitRecord], None] = lambda record: None) -> float:
    """Seconds of the job's second stage on one token shard, into a temporary directory."""
    with tempfile.TemporaryDirectory() as out:
        unit = AnnotationUnit(name="target", tokens=_write_token_shard(problem, out))
        return seconds_of(lambda: annotate_unit(unit, replace(problem.spec, out=out), Heartbeats(), on_done))


def check_share(problem: Problem, rounds: int) -> float:
    """Share of a unit's time that the checks before its commit take; they run while the teacher computes."""
    records: list[UnitRecord] = []
    seconds = sum(annotate(problem, records.append) for _ in range(rounds))
    return sum(float(record.timings["check_seconds"]) for record in records) / seconds


def seconds_of(work: Callable[[], Any]) -> float:
    """Wall-clock seconds of a function that returns when its work is done."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _write_token_shard(problem: Problem, out: str) -> TokenShard:
    spec, windows = problem.spec, problem.windows
    metadata = ShardMetadata(kind="tokens", split="train", window_tokens=spec.window_tokens, tokenizer=spec.tokenizer)
    encoded = encode_shard(windows, None, metadata)
    storage.create(storage.join(out, shard_path("tokens", "train", "tokens")), encoded.data)
    return TokenShard(
        name="tokens",
        split="train",
        num_windows=windows.num_windows,
        num_positions=windows.num_positions,
        num_documents=windows.num_documents(),
        footer_digest=encoded.footer_digest,
    )


def measure(problem: Problem, rounds: int) -> dict[str, Any]:
    """Tokens per second of each column, and its ratio to the bare forward."""
    best = fastest_batch(problem)
    window = problem.windows.select(0, 1)
    measured = np.ones(window.num_positions, dtype=bool)
    columns = {
        "bare forward": lambda: seconds_of(lambda: bare_forward(problem, best)),
        "annotate": lambda: annotate(problem),
        "eager chain": lambda: seconds_of(lambda: eager_chain(problem, min(best, _MAX_EAGER_WINDOWS))),
        "one window": lambda: seconds_of(lambda: problem.scorer.score(window)),
        "one window, measured": lambda: seconds_of(lambda: problem.scorer.score_and_measure(window, measured)),
    }
    annotate(problem)  # warm-up: compiles and caches
    seconds: dict[str, list[float]] = {name: [] for name in columns}
    for index in range(rounds):
        # In reverse every other round, so that no column always follows the same one.
        for name in list(columns)[:: -1 if index % 2 else 1]:
            seconds[name].append(columns[name]())
    one, one_measured = (np.array(seconds.pop(name)) for name in ("one window", "one window, measured"))
    more = (one_measured - one) * problem.windows.num_windows / score_windows.MEASURED_WINDOW_INTERVAL
    seconds["annotate, every 64th window measured"] = (np.array(seconds["annotate"]) + more).tolist()
    bare, tokens = seconds["bare forward"], problem.windows.num_positions
    return {
        "batch_windows_of_bare_forward": best,
        "columns": {
            name: {
                "tokens_per_second": tokens / statistics.median(times),
                "ratio": statistics.median(b / t for b, t in zip(bare, times, strict=True)),
                "seconds": times,
            }
            for name, times in seconds.items()
        },
    }


def fastest_batch(problem: Problem) -> int:
    """Windows per batch at which the bare forward is fastest; each size is tried once, after a warm-up."""
    bare_forward(replace(problem, windows=problem.windows.select(0, 1)), 1)
    seconds: dict[int, float] = {}
    size = 1
    while size <= problem.windows.num_windows:
        try:
            seconds[size] = seconds_of(lambda: bare_forward(problem, size))  # noqa: B023 - called at once
        except torch.OutOfMemoryError:
            break
        size *= 2
    return min(seconds, key=seconds.__getitem__)


def peak_bytes(problem: Problem) -> int:
    """Peak memory of annotation above the loaded model, vocabulary statistics included."""
    score_windows.measured_rows = _measured_rows
    if problem.model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        annotate(problem)
        return torch.cuda.max_memory_allocated() - before
    # The scorer keeps its buffer from earlier rounds, which counts too.
    problem.scorer._kept_TV = torch.empty(0)
    return_free_memory()
    with Peak() as peak:
        annotate(problem)
    return peak.bytes - peak.before_bytes


def measure_heads(vocab_size: int, device: str, rounds: int) -> dict[str, Any]:
    """Heads alone from one block of logits [1024, V], next to float32 log-softmax + topk."""
    generator = torch.Generator().manual_seed(0)
    block_TV = torch.randn(WINDOW_TOKENS, vocab_size, generator=generator).mul_(2.2).to(device)
    peaks = torch.randint(0, vocab_size, (WINDOW_TOKENS, 60), generator=generator)
    block_TV.scatter_add_(1, peaks.to(device), (12 * torch.rand(peaks.shape, generator=generator)).to(device))
    next_ids = torch.zeros(WINDOW_TOKENS, dtype=torch.long, device=device)
    kernel = Kernel(choose_kernel("auto", vocab_size, device), device=device)
    logits_TV = torch.empty_like(block_TV)
    row_chunk = rows_of_chunk(vocab_size)

    def eager() -> float:
        started = time.perf_counter()
        block_TV.log_softmax(-1).topk(128)
        _synchronize(torch.device(device))
        return time.perf_counter() - started

    def ours(scheme: Scheme) -> float:
        logits_TV.copy_(block_TV)
        _synchronize(torch.device(device))
        started = time.perf_counter()
        for start in range(0, WINDOW_TOKENS, row_chunk):
            rows = slice(start, start + row_chunk)
            select_heads(logits_TV[rows], scheme, next_ids[rows], kernel=kernel)
        _synchronize(torch.device(device))
        return time.perf_counter() - started

    ratios: dict[str, list[float]] = {name: [] for name in _HEAD_SCHEMES}
    milliseconds: dict[str, list[float]] = {"log_softmax + topk": [], **{name: [] for name in _HEAD_SCHEMES}}
    with torch.inference_mode():
        for scheme in _HEAD_SCHEMES.values():
            ours(scheme)
        for _ in range(rounds):
            milliseconds["log_softmax + topk"].append(1e3 * eager())
            for name, scheme in _HEAD_SCHEMES.items():
                milliseconds[name].append(1e3 * ours(scheme))
                ratios[name].append(milliseconds["log_softmax + topk"][-1] / milliseconds[name][-1])
    return {
        "vocab_size": vocab_size,
        "kernel": kernel.kind,
        "milliseconds": {name: statistics.median(times) for name, times in milliseconds.items()},
        "times_faster": {name: statistics.median(times) for name, times in ratios.items()},
    }


def load_problem(options: argparse.Namespace) -> Problem:
    """The teacher and the windows of the command line."""
    torch.set_num_threads(options.threads)
    # No vocabulary statistics, until memory is measured.
    score_windows.measured_rows = lambda windows: np.zeros(windows.num_positions, dtype=bool)
    model, teacher, tokenizer, windows = _random(options) if options.teacher == RANDOM else _real(options)
    spec = ScorerSpec(
        kind="loaded",
        reference=options.teacher,
        device=options.device,
        dtype=options.dtype,
        scheme=ThresholdScheme(),
        num_threads=options.threads,
        batch_tokens=options.batch_tokens,
    )
    scorer = TrunkScorer(HuggingFaceTrunk(model), spec)
    SCORERS["loaded"] = lambda spec: scorer
    return Problem(
        scorer=scorer,
        windows=windows,
        spec=AnnotationSpec(
            out="",
            scorer=spec,
            teacher=teacher,
            tokenizer=tokenizer,
            window_tokens=WINDOW_TOKENS,
            has_entropy=True,
            corpus_license=None,
        ),
    )


def _real(options: argparse.Namespace) -> tuple[Any, TeacherInfo, TokenizerInfo, Windows]:
    from logitcask.teacher.model.description import describe_teacher
    from logitcask.teacher.model.loading import load_model
    from logitcask.teacher.text.tokenizers import load_tokenizer

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
    from demo import fetch_teacher  # pyright: ignore[reportMissingImports]

    reference = fetch_teacher(options.teacher)
    tokenizer = load_tokenizer(reference)
    windows = _pack_topics(tokenizer, options.windows)
    model = load_model(reference, options.dtype, options.device)
    return model, describe_teacher(reference, options.dtype), tokenizer.info, windows


def _pack_topics(tokenizer: Any, num_windows: int) -> Windows:
    """Windows of English prose that comes with every CPython, packed as in a job."""
    texts = corpus.python_topics()
    documents = (
        Document(id=str(number), source="topics", ids=np.array(tokenizer.encode(text), np.int32))
        for number, text in enumerate(texts)
    )
    info = tokenizer.info
    packed = pack_documents(documents, WINDOW_TOKENS, bos_id=info.bos_id, eos_id=info.eos_id, max_open=2)
    return Windows.concatenate(list(itertools.islice(packed, num_windows)))


def _random(options: argparse.Namespace) -> tuple[Any, TeacherInfo, TokenizerInfo, Windows]:
    """Gemma 2 2B in shape (arXiv 2408.00118, table 1), with random weights, and windows of two random parts."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=256_000,
        hidden_size=2304,
        intermediate_size=9216,
        num_hidden_layers=26,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        query_pre_attn_scalar=256,
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        torch.set_default_dtype(getattr(torch, options.dtype))
        model = Gemma2ForCausalLM(config).eval().requires_grad_(False)
        torch.set_default_dtype(torch.float32)
    num_rows = options.windows * WINDOW_TOKENS
    windows = Windows(
        token=np.random.default_rng(0).integers(0, 256_000, num_rows).astype(np.int32),
        kind=np.zeros(num_rows, np.uint8),
        part=np.repeat(np.arange(2 * options.windows, dtype=np.int32), WINDOW_TOKENS // 2),
        window_offsets=np.arange(0, num_rows + 1, WINDOW_TOKENS),
        parts=tuple(Part(id=str(n), source="random", offset=0) for n in range(2 * options.windows)),
    )
    teacher = TeacherInfo(
        name=RANDOM,
        fingerprint="0",
        vocab_size=256_000,
        dtype=options.dtype,
        architecture="Gemma2ForCausalLM",
        num_parameters=sum(p.numel() for p in model.parameters()),
        licence=None,
        final_logit_softcap=30.0,
    )
    tokenizer = TokenizerInfo(
        name=RANDOM,
        fingerprint="0",
        vocabulary_fingerprint="0",
        vocab_size=256_000,
        bos_id=None,
        eos_id=None,
        chat_template=None,
    )
    return model, teacher, tokenizer, windows


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Measures everything and prints it."""
    problem = load_problem(options)
    found = measure(problem, options.rounds)
    found |= {"threads": options.threads, "device": options.device, "dtype": options.dtype, "teacher": options.teacher}
    print(
        f"{options.teacher}, {options.dtype}, {options.device}, {options.threads} threads: "
        f"{problem.windows.num_windows} windows of up to {WINDOW_TOKENS}, {options.rounds} rounds"
    )
    for name, row in found["columns"].items():
        print(f"  {name:<40}{row['tokens_per_second']:>12,.0f} tokens/s{row['ratio']:>8.3f} of the bare forward")
    found["check_share"] = check_share(problem, options.rounds)
    print(f"  checks of the rules before the commit: {found['check_share']:.3%} of the unit's time")
    found["peak_bytes_above_model"] = peak_bytes(problem)
    print(f"  peak memory above the model: {found['peak_bytes_above_model'] / 1e9:.2f} GB")
    found["heads"] = measure_heads(problem.scorer.vocab_size, options.device, options.rounds)
    print(f"heads from logits [{WINDOW_TOKENS}, {found['heads']['vocab_size']}], kernel: {found['heads']['kernel']}")
    for name, milliseconds in found["heads"]["milliseconds"].items():
        faster = found["heads"]["times_faster"].get(name)
        print(f"  {name:<22}{milliseconds:>9,.0f} ms" + (f"{faster:>8.1f} × faster" if faster else ""))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--teacher", default="gemma", help=f"gemma, smollm, {RANDOM}, a directory, .gguf file or hub id"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--batch-tokens", type=int, help="2048 by default, 32768 on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    options.batch_tokens = options.batch_tokens or (32_768 if options.device.startswith("cuda") else 2048)
    found = report(options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
