"""Our side of the bench: the schemes, their shards, and how fast a trainer reads them."""

import tempfile
from dataclasses import dataclass

import numpy as np
import rivals
import torch
from capture import WINDOW_TOKENS, Capture
from clock import timed

from schemas.reader import ShardReader
from schemas.scheme import Scheme
from schemas.shard import ShardMetadata, TeacherInfo, TokenizerInfo, encode_shard
from schemas.targets import Targets, Windows
from student.targets import RaggedTargets

SCHEMES = {
    "k = 64": Scheme(kind="topk", k=64),
    "k = 128": Scheme(kind="topk", k=128),
    "p ≥ 1e-3": Scheme(kind="threshold", tau=1e-3, k=128),
}
BLOCK_WINDOWS = 8
# Positions that the read path is measured on, repeated from the capture if it has fewer.
READ_POSITIONS = 65_536


def targets_of(found: Capture, scheme: str) -> Targets:
    chosen = SCHEMES[scheme]
    return found.heads(chosen.k, chosen.tau if chosen.kind == "threshold" else 0.0)


class Ours:
    """The shard, read the way a trainer reads it: blocks of windows."""

    def __init__(self, found: Capture, scheme: str) -> None:
        self.found, self.scheme = found, scheme

    def encode(self, token: np.ndarray, targets: Targets) -> bytes:
        return encode_shard(self.found.windows, targets, metadata(self.found, SCHEMES[self.scheme])).data

    def decode(self, data: bytes) -> rivals.Decoded:
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            file.write(data)
            file.flush()
            with ShardReader(file.name) as reader:
                starts = range(0, reader.num_windows, BLOCK_WINDOWS)
                blocks = [reader.read(start, min(start + BLOCK_WINDOWS, reader.num_windows)) for start in starts]
        targets = Targets.concatenate([block.targets for block in blocks if block.targets])
        return rivals.Decoded(targets.head_ids, targets.head_log_probs, targets.head_offsets, targets.log_tail)


def metadata(found: Capture, scheme: Scheme) -> ShardMetadata:
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
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadPath:
    """Tokens a second and core from a shard's bytes to the tensors that the loss takes."""

    scheme: str
    sequential: float
    random_blocks: float
    single_windows: float


def read_path(found: Capture, scheme: str) -> ReadPath:
    """Reading in order, in random order of row groups' windows, and window by random window."""
    copies = -(-READ_POSITIONS // found.windows.num_positions)
    windows = Windows.concatenate([found.windows] * copies)
    targets = Targets.concatenate([targets_of(found, scheme)] * copies)
    data = encode_shard(windows, targets, metadata(found, SCHEMES[scheme])).data
    rng = np.random.default_rng(0)
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(data)
        file.flush()
        with ShardReader(file.name) as reader:
            starts = np.arange(0, reader.num_windows, BLOCK_WINDOWS)
            blocks = [(start, min(start + BLOCK_WINDOWS, reader.num_windows)) for start in starts.tolist()]
            singles = [(window, window + 1) for window in rng.permutation(reader.num_windows).tolist()]
            shuffled = [blocks[index] for index in rng.permutation(len(blocks))]
            return ReadPath(
                scheme=scheme,
                sequential=read_speed(reader, blocks),
                random_blocks=read_speed(reader, shuffled),
                single_windows=read_speed(reader, singles[: len(singles) // 2]),
            )


def read_speed(reader: ShardReader, ranges: list[tuple[int, int]]) -> float:
    """Tokens a second."""
    num_positions = sum(int(reader.window_lengths[start:stop].sum()) for start, stop in ranges)
    _, seconds = timed(lambda: [tensors(reader, start, stop) for start, stop in ranges] and None)
    return num_positions / seconds


def tensors(reader: ShardReader, start: int, stop: int) -> tuple[torch.Tensor, RaggedTargets]:
    """What the loss takes: tokens and targets."""
    block = reader.read(start, stop)
    assert block.targets is not None
    return torch.tensor(block.windows.token), RaggedTargets.from_arrays(block.targets, reader.metadata.vocab_size)
