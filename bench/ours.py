"""Logitcask in the format bench: the schemes, their shards, and how fast a trainer reads them."""

import tempfile
from dataclasses import dataclass, replace

import numpy as np
import rivals
import zstandard
from capture import SAMPLING, WINDOW_TOKENS, Capture
from clock import in_turns

from logitcask.schemas.format.metadata import ShardMetadata, TeacherInfo, TokenizerInfo
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.scheme import Layout, Scheme, ThresholdScheme, TopKScheme
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.format.writer import encode_shard
from logitcask.student.data.collator import Batch, collate
from logitcask.student.data.dataset import WindowSample

SCHEMES = {
    "k = 64": TopKScheme(k=64),
    "k = 128": TopKScheme(k=128),
    "p ≥ 1e-3": ThresholdScheme(tau=1e-3, k=128),
    "θ = 1/36": replace(SAMPLING["threshold-sampling"], replicas=1),
    "50 draws": SAMPLING["random-sampling"],
}
BLOCK_WINDOWS = 8
# Positions for the read path; the capture is repeated if it has fewer.
READ_POSITIONS = 65_536


def targets_of(found: Capture, scheme: str) -> Targets:
    """The targets of a scheme, from the captured distributions."""
    chosen = SCHEMES[scheme]
    if chosen.num_tail_samples:
        return found.sampled(chosen.kind)
    return found.heads(chosen.max_head_width, chosen.tau if isinstance(chosen, ThresholdScheme) else 0.0)


class ShardEncoding:
    """The shard format, read in blocks of windows, as a trainer reads it."""

    def __init__(self, found: Capture, scheme: str, layout: Layout = "plain") -> None:
        self.found, self.metadata = found, metadata(found, SCHEMES[scheme], layout)

    def encode(self, token: np.ndarray, targets: Targets) -> bytes:
        return encode_shard(self.found.windows, targets, self.metadata).data

    def decode(self, data: bytes) -> rivals.Decoded:
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            file.write(data)
            file.flush()
            with ShardReader(file.name) as reader:
                starts = range(0, reader.num_windows, BLOCK_WINDOWS)
                blocks = [reader.read(start, min(start + BLOCK_WINDOWS, reader.num_windows)) for start in starts]
        targets = Targets.concatenate([block.targets for block in blocks if block.targets])
        return rivals.Decoded(targets.head_ids, targets.head_log_probs, targets.head_offsets, targets.log_tail)


def metadata(found: Capture, scheme: Scheme, layout: Layout = "plain") -> ShardMetadata:
    size = found.vocab_size
    tokenizer = TokenizerInfo(
        name="bench", fingerprint="0" * 32, vocabulary_fingerprint="0" * 32, vocab_size=size, bos_id=None, eos_id=None
    )
    teacher = TeacherInfo(
        name="bench", fingerprint="0" * 32, vocab_size=size, dtype="float32", architecture="bench", num_parameters=0
    )
    return ShardMetadata(
        kind="targets",
        split="train",
        window_tokens=WINDOW_TOKENS,
        tokenizer=tokenizer,
        teacher=teacher,
        scheme=scheme,
        layout=layout,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadPath:
    """Tokens per second and core from the bytes of a shard to the batch for the loss.

    Attributes:
        scheme: Name of the scheme.
        sequential: Row groups in order.
        random_blocks: Blocks of eight windows in random order, as a shuffled run reads them.
        single_windows: Single windows in random order; each read decodes a whole row group.
        reference: Tokens with k = 64 ids that zstd alone decompresses in the same run: the speed of the machine.
    """

    scheme: str
    sequential: float
    random_blocks: float
    single_windows: float
    reference: float


def read_path(found: Capture, scheme: str) -> ReadPath:
    """Measures all speeds in turns, so that a busy machine slows all of them equally."""
    copies = -(-READ_POSITIONS // found.windows.num_positions)
    windows = Windows.concatenate([found.windows] * copies)
    targets = Targets.concatenate([targets_of(found, scheme)] * copies)
    data = encode_shard(windows, targets, metadata(found, SCHEMES[scheme])).data
    packed = zstandard.compress(found.heads(64).head_ids[: 64 * 8192].tobytes(), 9)
    rng = np.random.default_rng(0)
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(data)
        file.flush()
        with ShardReader(file.name) as reader:
            singles = [(window, window + 1) for window in rng.permutation(reader.num_windows).tolist()]
            starts = rng.permutation(np.arange(0, reader.num_windows, BLOCK_WINDOWS)).tolist()
            blocks = [(start, min(start + BLOCK_WINDOWS, reader.num_windows)) for start in starts]
            seconds = in_turns(
                {
                    "sequential": lambda: read_all(reader, row_groups(reader)),
                    "random_blocks": lambda: read_all(reader, blocks),
                    "single_windows": lambda: read_all(reader, singles[: len(singles) // 2]),
                    "reference": lambda: zstandard.decompress(packed),
                }
            )
            num_single = sum(int(reader.window_lengths[window]) for window, _ in singles[: len(singles) // 2])
            tokens = {"single_windows": num_single, "reference": 8192}
            speeds = {name: tokens.get(name, reader.num_positions) / spent for name, spent in seconds.items()}
    return ReadPath(scheme=scheme, **speeds)


def row_groups(reader: ShardReader) -> list[tuple[int, int]]:
    """The windows (start, stop) of each row group."""
    return sorted({reader.block_of(window) for window in range(reader.num_windows)})


def read_all(reader: ShardReader, ranges: list[tuple[int, int]]) -> None:
    for start, stop in ranges:
        batch_of(reader, start, stop)


def batch_of(reader: ShardReader, start: int, stop: int) -> Batch:
    """A batch of some windows, as a loader makes it for `student.training.batch_loss.soft_target_loss`."""
    block = reader.read_stored(start, stop)
    assert block.targets is not None
    bounds = zip(block.windows.window_offsets[:-1].tolist(), block.windows.window_offsets[1:].tolist(), strict=True)
    return collate(
        [
            WindowSample(
                index=start + number,
                windows=block.windows.select(number, number + 1),
                targets=block.targets.select_rows(*rows),
            )
            for number, rows in enumerate(bounds)
        ]
    )
