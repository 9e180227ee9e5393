"""Writes the golden shards of format version 1, and the values that a reader must return for each.

    python tests/golden/v1/generate.py

The files next to this script are permanent: every later reader must read them. The current writer wrote the shards from
inputs computed from integers. Plain Python computes the expected values from the stored columns by the rules of
FORMAT.md, independently of the reader.
"""

import hashlib
import json
import math
import struct
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from logitcask.schemas.format.metadata import FORMAT_VERSION, ShardMetadata, TeacherInfo, TokenizerInfo
from logitcask.schemas.format.scheme import (
    Layout,
    RandomSamplingScheme,
    Scheme,
    ThresholdSamplingScheme,
    ThresholdScheme,
    TopKScheme,
    TopPScheme,
)
from logitcask.schemas.format.targets import Kind, Part, TailSample, Targets, Windows
from logitcask.schemas.format.writer import encode_shard

# Another format version needs its own directory, generator and files; it never overwrites these.
assert FORMAT_VERSION == 1, f"this generator writes version 1, the library writes {FORMAT_VERSION}"

HERE = Path(__file__).resolve().parent
VOCAB_SIZE = 512
WINDOW_LENGTHS = (8, 5, 1, 6)
PART_LENGTHS = (3, 5, 5, 1, 6)
TRAIN, CONTEXT, PROMPT, GENERATED = (int(kind) for kind in Kind)

Inputs = tuple[Windows, Targets | None, ShardMetadata]


def shards() -> dict[str, Inputs]:
    """File name to the inputs of the shard."""
    plain = make_windows([TRAIN] * 20)
    mixed = make_windows([CONTEXT, CONTEXT, TRAIN] + [PROMPT, PROMPT, TRAIN, TRAIN, PROMPT] + [GENERATED] * 12)
    every_option = ThresholdSamplingScheme(theta=1 / 8, replicas=2)
    return {
        "tokens": (mixed, None, make_metadata("tokens", None)),
        "threshold": (plain, make_targets(plain, width=9), make_metadata("targets", ThresholdScheme(tau=0.002, k=16))),
        "topk": (plain, make_targets(plain, width=0), make_metadata("targets", TopKScheme(k=4))),
        "topp": (plain, make_targets(plain, width=5), make_metadata("targets", TopPScheme(p=0.9, k=8))),
        "kinds": (mixed, make_targets(mixed, width=3), make_metadata("targets", ThresholdScheme(k=8))),
        "tempered": (
            mixed,
            with_tempered_tails(make_targets(mixed, width=3)),
            make_metadata("targets", ThresholdScheme()),
        ),
        "random-sampling": (
            mixed,
            drawn_targets(mixed),
            make_metadata("targets", RandomSamplingScheme(draws=3)),
        ),
        "options": (mixed, with_options(mixed), make_metadata("targets", every_option, True)),
        "extremes": (plain, extreme_targets(plain), make_metadata("targets", ThresholdScheme(k=256), True)),
        "compact": (
            mixed,
            make_targets(mixed, width=9),
            make_metadata("targets", ThresholdScheme(k=16), layout="compact"),
        ),
    }


def make_windows(kinds: list[int]) -> Windows:
    """Four windows with five parts: one part starts inside a document, one has a single row."""
    index = np.arange(sum(WINDOW_LENGTHS))
    return Windows(
        token=(index * 37 % VOCAB_SIZE).astype(np.int32),
        kind=np.array(kinds, np.uint8),
        part=np.repeat(np.arange(len(PART_LENGTHS)), PART_LENGTHS).astype(np.int32),
        window_offsets=np.cumsum([0, *WINDOW_LENGTHS]).astype(np.int64),
        parts=tuple(
            Part(id=f"document {number} – ‘ö’", source=f"corpus/a.jsonl#{number}", offset=100 if number == 2 else 0)
            for number in range(len(PART_LENGTHS))
        ),
    )


def make_metadata(
    kind: Any, scheme: Scheme | None, has_entropy: bool = False, layout: Layout = "plain"
) -> ShardMetadata:
    teacher = TeacherInfo(
        name="golden/teacher",
        fingerprint="00112233445566778899aabbccddeeff",
        vocab_size=VOCAB_SIZE,
        dtype="float32",
        architecture="Gemma2ForCausalLM",
        num_parameters=12_345,
        licence="apache-2.0",
        final_logit_softcap=30.0,
    )
    tokenizer = TokenizerInfo(
        name="golden/tokenizer",
        fingerprint="ffeeddccbbaa99887766554433221100",
        vocabulary_fingerprint="0123456789abcdef0123456789abcdef",
        vocab_size=VOCAB_SIZE,
        bos_id=2,
        eos_id=None,
        chat_template="{{ messages }}",
    )
    return ShardMetadata(
        kind=kind,
        split="held-out" if kind == "tokens" else "train",
        window_tokens=8,
        tokenizer=tokenizer,
        teacher=teacher if scheme else None,
        scheme=scheme,
        has_entropy=has_entropy,
        corpus_licence="CC0-1.0",
        layout=layout,
    )


def make_targets(windows: Windows, width: int) -> Targets:
    """Heads of 1 to `width` entries (0: always 4); each mass is a small integer over the sum of the row's integers."""
    ids, log_probs, widths, log_tail = [], [], [], []
    for row, has_target in enumerate(windows.has_target().tolist()):
        num_entries = (1 + row % width if width else 4) if has_target else 0
        weights = [1 + (row * 7919 + entry * 104_729) % 997 for entry in range(num_entries)]
        tail_weight = 1 + row * 31 % 211
        total = sum(weights) + tail_weight
        ids += sorted((row * 53 + entry * 67) % VOCAB_SIZE for entry in range(num_entries))
        log_probs += [math.log(weight / total) for weight in weights]
        widths.append(num_entries)
        log_tail.append(math.log(tail_weight / total) if has_target else math.nan)
    labels = np.arange(windows.num_positions) * 0.59 + 0.01
    return Targets(
        head_ids=np.array(ids, np.int32),
        head_log_probs=np.array(log_probs, np.float32),
        head_offsets=np.cumsum([0, *widths]).astype(np.int64),
        log_tail=np.array(log_tail, np.float32),
        log_next=np.where(windows.has_label(), -labels, np.nan).astype(np.float32),
        entropy=None,
    )


def with_tempered_tails(targets: Targets) -> Targets:
    """Targets with tails at two other temperatures. The values are not those of a softmax, which the format allows."""
    return replaced(
        targets, tempered_log_tails={2.0: targets.log_tail / np.float32(2), 0.5: targets.log_tail * np.float32(2)}
    )


def with_options(windows: Windows) -> Targets:
    """Targets with every optional column: entropy, two replicas of a tail sample, tails at two other temperatures."""
    targets = with_tempered_tails(make_targets(windows, width=6))
    has_target = targets.has_target()
    entropy = np.where(has_target, np.arange(len(has_target)) * 0.3, np.nan).astype(np.float32)
    return replaced(targets, entropy=entropy, tail_samples=(make_sample(targets, 2), make_sample(targets, 3)))


def drawn_targets(windows: Windows) -> Targets:
    """Targets without heads: the whole distribution is the tail, represented by three draws per row."""
    targets = make_targets(windows, width=1)
    headless = replaced(
        targets,
        head_ids=targets.head_ids[:0],
        head_log_probs=targets.head_log_probs[:0],
        head_offsets=np.zeros_like(targets.head_offsets),
        log_tail=np.where(targets.has_target(), np.float32(0), np.float32(np.nan)),
    )
    return replaced(headless, tail_samples=(make_sample(headless, 3),))


def make_sample(targets: Targets, num_draws: int) -> TailSample:
    """`num_draws` ids from outside the head in each row with a target, ascending; the first is drawn twice."""
    ids: list[int] = []
    for row in np.flatnonzero(targets.has_target()).tolist():
        head = targets.head_ids[targets.head_offsets[row] : targets.head_offsets[row + 1]]
        outside = [token for token in range(VOCAB_SIZE) if token not in head]
        ids += sorted(outside[(row * 17 + draw // 2 * 191) % len(outside)] for draw in range(num_draws))
    widths = np.where(targets.has_target(), num_draws, 0)
    return TailSample(ids=np.array(ids, np.int32), offsets=np.cumsum([0, *widths]).astype(np.int64))


def extreme_targets(windows: Windows) -> Targets:
    """Values at the limits of the stored ranges; the comments name them."""
    targets = make_targets(windows, width=1)
    log_probs, log_tail = np.zeros(20), np.full(20, -10.0)
    log_next, entropy = targets.log_next.copy(), np.full(20, 1.0)
    log_tail[0] = -np.inf  # no mass outside the head
    log_tail[1] = -80.0  # less mass than can be stored, but not the zero tail
    log_tail[2], log_probs[2] = 0.0, -30.0  # all mass outside the head; the head saturates at q = 255
    log_tail[3], log_probs[3] = -1 / 4096, -8.5  # half a step of the tail: rounds to even
    log_tail[4], log_probs[4] = -3 / 4096, -7.5
    log_probs[5] = -(65 / 64) / 128  # the midpoint of q = 0 and q = 1: rounds to the smaller
    log_next[0], log_next[1], log_next[3] = 0.0, -500.0, -32.0
    entropy[0], entropy[1], entropy[2] = 0.0, 12.5, 40.0
    whole = np.arange(256)  # the last row's head: 256 entries whose masses fall by a factor of e^(1/8)
    last = -whole / 8 - math.log(sum(math.exp(-entry / 8) for entry in range(256)))
    return replaced(
        targets,
        head_ids=np.append(targets.head_ids[:19], whole * 2).astype(np.int32),
        head_log_probs=np.append(log_probs[:19], last).astype(np.float32),
        head_offsets=np.append(np.arange(20), 19 + 256).astype(np.int64),
        log_tail=log_tail.astype(np.float32),
        log_next=log_next,
        entropy=entropy.astype(np.float32),
    )


def replaced(targets: Targets, **changes: Any) -> Targets:
    return Targets(**{name: getattr(targets, name) for name in Targets.__dataclass_fields__} | changes)


def expected(data: bytes) -> dict[str, Any]:
    """The content of a shard by FORMAT.md, from its plain columns. An absent value is null, a zero tail "-inf"."""
    file = pq.ParquetFile(pa.BufferReader(data))
    columns = file.read().to_pydict()
    footer = {key.decode(): value for key, value in file.metadata.metadata.items()}
    windows = json.loads(footer["logitcask.windows"])
    assert windows["hashes"] == content_hashes(columns, windows["lengths"])
    if "id_gaps" in columns:
        columns["ids"], columns["q"] = without_gaps(columns, json.loads(footer["logitcask.frequent_ids"]))
    return {
        "format_version": int(footer["logitcask.format_version"]),
        "metadata": json.loads(footer["logitcask.metadata"]),
        "parts": json.loads(footer["logitcask.parts"]),
        "windows": windows,
        **{name: columns[name] for name in ("window", "document", "token", "kind")},
        "targets": expected_targets(columns) if "ids" in columns else None,
    }


def content_hashes(columns: dict[str, list], lengths: list[int]) -> list[str]:
    hashes, start = [], 0
    for length in lengths:
        rows = bytearray()
        for row in range(start, start + length):
            starts_part = row == start or columns["document"][row] != columns["document"][row - 1]
            rows += struct.pack("<iBB", columns["token"][row], columns["kind"][row], starts_part)
        hashes.append(hashlib.blake2b(rows, digest_size=16).hexdigest())
        start += length
    return hashes


def without_gaps(columns: dict[str, list], frequent: list[int]) -> tuple[list[list[int]], list[list[int]]]:
    """Ids and quantized values of a compact shard, by ascending id."""
    by_rank = frequent + [token for token in range(VOCAB_SIZE) if token not in frequent]
    rows = [
        sorted(zip((by_rank[rank] for rank in accumulate(gaps)), q, strict=True))
        for gaps, q in zip(columns["id_gaps"], columns["q"], strict=True)
    ]
    return [[token for token, _ in row] for row in rows], [[byte for _, byte in row] for row in rows]


def expected_targets(columns: dict[str, list]) -> dict[str, Any]:
    decoded = [decode(q, tail) for q, tail in zip(columns["q"], columns["tail"], strict=True)]
    return {
        "ids": columns["ids"],
        "log_probs": [log_probs for log_probs, _ in decoded],
        "log_tail": [log_tail for _, log_tail in decoded],
        "log_next": [nats and -nats for nats in map(in_nats, columns["next_q"])],
        "entropy": [in_nats(steps) for steps in columns["entropy"]] if "entropy" in columns else None,
        "tail_samples": [columns[name] for name in ("tail_sample", "tail_sample@1") if name in columns],
        "tempered_log_tails": {
            name.removeprefix("tail@"): [log_tail_of(steps) for steps in columns[name]]
            for name in columns
            if name.startswith("tail@")
        },
    }


def decode(q: list[int], tail: int | None) -> tuple[list[float], float | str | None]:
    if tail is None:
        return [], None
    head = [-(byte / 64) * (1 + byte / 64) for byte in q]
    log_tail = log_tail_of(tail)
    log_mass = math.log(math.fsum(math.exp(value) for value in [*head, log_tail] if value != "-inf"))
    return [value - log_mass for value in head], log_tail if log_tail == "-inf" else log_tail - log_mass


def log_tail_of(steps: int | None) -> float | str | None:
    return "-inf" if steps == 65535 else steps and -steps / 2048


def in_nats(steps: int | None) -> float | None:
    return None if steps is None else steps / 2048


def main() -> None:
    digests = {}
    for name, (windows, targets, metadata) in shards().items():
        shard = encode_shard(windows, targets, metadata)
        (HERE / f"{name}.parquet").write_bytes(shard.data)
        (HERE / f"{name}.json").write_text(json.dumps(expected(shard.data), ensure_ascii=False) + "\n")
        digests[name] = {"digest": shard.digest, "footer_digest": shard.footer_digest}
    written_with = {"pyarrow": pa.__version__, "shards": digests}
    (HERE / "written_with.json").write_text(json.dumps(written_with, indent=2) + "\n")


if __name__ == "__main__":
    main()
