"""A small dataset that tries what a report has to bear: markup as text, characters in pieces, rows without targets."""

import dataclasses

import numpy as np
import random_shards
from random_shards import full_description, random_targets

from logitcask.schemas import DatasetWriter
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.format.metadata import SPLITS
from logitcask.schemas.format.targets import Kind, Part, Windows
from logitcask.schemas.stats.by_source import SourceGroups

VOCAB_SIZE = 120
HOSTILE = "</script><img src=x onerror=alert(1)><!--"
HOSTILE_ID, NEWLINE_ID, FIRST_HALF, SECOND_HALF, REVERSED_ID = 5, 6, 7, 8, 9
WINDOW_TOKENS = 48
IDENTITY = dataclasses.replace(
    random_shards.IDENTITY,
    tokenizer=dataclasses.replace(random_shards.TOKENIZER, vocab_size=VOCAB_SIZE),
    teacher=dataclasses.replace(random_shards.TEACHER, name="random/teacher", vocab_size=VOCAB_SIZE),
    window_tokens=WINDOW_TOKENS,
    corpus_licence="PSF-2.0",
)


def pieces() -> list[bytes]:
    """Words; one is markup, one ends a line, two are the halves of é, one turns the direction of writing."""
    found = [f" word{i}".encode() for i in range(VOCAB_SIZE)]
    found[HOSTILE_ID], found[NEWLINE_ID] = HOSTILE.encode(), b"\n"
    found[FIRST_HALF], found[SECOND_HALF] = "é".encode()[:1], "é".encode()[1:]
    found[REVERSED_ID] = "\u202e".encode()
    return found


def hostile_windows(rng: np.random.Generator, num_windows: int, name: str) -> Windows:
    """Windows of two parts each; the first begins with markup, é in halves, and has two rows without a target."""
    lengths = [WINDOW_TOKENS - index % 3 for index in range(num_windows)]
    token = rng.integers(10, VOCAB_SIZE, sum(lengths)).astype(np.int32)
    token[:6] = [20, HOSTILE_ID, FIRST_HALF, SECOND_HALF, NEWLINE_ID, REVERSED_ID]
    kind = np.full(len(token), Kind.TRAIN, np.uint8)
    kind[24:26] = Kind.PROMPT
    part = np.concatenate([2 * index + (np.arange(n) >= 24) for index, n in enumerate(lengths)])
    return Windows(
        token=token,
        kind=kind,
        part=part.astype(np.int32),
        window_offsets=np.cumsum([0, *lengths]),
        parts=tuple(
            Part(id=f"{name}-{index}{HOSTILE}", source=f"corpus/{name}.txt#{index}", offset=0)
            for index in range(2 * num_windows)
        ),
    )


def write_dataset(out: str, *, windows_per_shard: int = 6, vocabulary: bool = True) -> Snapshot:
    """Writes a finished dataset of a train and a held-out shard."""
    rng = np.random.default_rng(18)
    writer = DatasetWriter(out, IDENTITY, pieces=pieces() if vocabulary else None)
    for split in SPLITS:
        windows = hostile_windows(rng, windows_per_shard, split)
        targets = random_targets(rng, windows, VOCAB_SIZE, widths=range(1, 25))
        groups = SourceGroups(prefixes={f"corpus/{split}": split})
        writer.write(windows, targets, split=split, name=f"shard-{split}", **full_description(windows, targets, groups))
    return writer.finish(rejected={"malformed_json": 1})
