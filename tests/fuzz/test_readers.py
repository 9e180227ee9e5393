"""Damaged files for every reader: each gives a named error, a rejection or a value, within bounds of time and memory.

Each example is a whole file with a few random changes. It is read in a child process, so that an abort in a library of
another language is a finding and not the end of the test. `make fuzz` tries many; FUZZ_EXAMPLES sets how many.
"""

import os
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpus_reading import read
from gguf import GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_shards import write_annotated_dataset
from repository import GOLDEN

from logitcask.schemas.dataset.layout import read_configuration
from logitcask.schemas.dataset.record import read_record
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.dataset.vocabulary import read_vocabulary, write_vocabulary
from logitcask.schemas.errors import LogitcaskError
from logitcask.schemas.format.reader import ShardReader
from logitcask.teacher.model.gguf_header import read_gguf_header
from logitcask.teacher.text.bounded_process import BoundedProcess

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
SECONDS, MEMORY_BYTES = 5.0, 1_000_000_000
_NUMBERS = [0, 1, -1, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, 10**9]
_JSON_VALUES = [b"null", b"-1", b"1e999", b"10000000000000000000000", b"NaN", b"[]", b"{}", b'"../../x"', b'"\\u0000"']


def read_shard(path: Path) -> None:
    with ShardReader(str(path)) as shard:
        shard.read_parts()
        shard.read()


def of_dataset(read_dataset: Callable[[str], object], pattern: str) -> Callable[[Path], None]:
    """A reader of one file of a dataset: the changed file takes its place."""

    def run(path: Path) -> None:
        out = path.parent / "dataset"
        place = next(iter(sorted(out.glob(pattern))))
        whole = place.read_bytes()
        try:
            place.write_bytes(path.read_bytes())
            read_dataset(str(out))
        finally:
            place.write_bytes(whole)

    return run


def read_list(out: str) -> None:
    snapshot = load_snapshot(out)
    list(snapshot.each_shard())
    snapshot.total()


# Name of a kind of file: the files that are changed, and its reader. Names of datasets' files are patterns.
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "shard.parquet": ("golden", read_shard),
    "record.json": ("targets/*/*.json", lambda path: read_record(str(path))),
    "configuration.json": ("logitcask.json", of_dataset(read_configuration, "logitcask.json")),
    "snapshot.json": ("snapshots/*.json", of_dataset(read_list, "snapshots/*.json")),
    "list.parquet": ("snapshots/*.parquet", of_dataset(read_list, "snapshots/*.parquet")),
    "pieces.json": ("tokenizer/pieces.json", of_dataset(read_vocabulary, "tokenizer/pieces.json")),
    "corpus.jsonl": ("corpus", read),
    "corpus.txt": ("corpus", read),
    "corpus.jsonl.zst": ("corpus", read),
    "corpus.jsonl.gz": ("corpus", read),
    "corpus.parquet": ("corpus", read),
    "teacher.gguf": ("gguf", read_gguf_header),
}


def read_file(kind: str, path: str) -> str:
    """ "read" or the name of the error; other errors are raised."""
    try:
        READERS[kind][1](Path(path))
    except LogitcaskError as error:
        return type(error).__name__
    return "read"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("fuzz")
    write_annotated_dataset(str(directory / "dataset"))
    write_vocabulary(str(directory / "dataset"), [b"piece %d" % i for i in range(100)], "f1")
    return directory


def whole_files(kind: str, workplace: Path) -> list[bytes]:
    source = READERS[kind][0]
    if source == "golden":
        return [file.read_bytes() for file in sorted((GOLDEN / "v1").glob("*.parquet"))]
    if source == "corpus":
        return [corpus_file(kind, workplace)]
    if source == "gguf":
        return [gguf_file(workplace / "whole.gguf")]
    return [file.read_bytes() for file in sorted((workplace / "dataset").glob(source))]


def corpus_file(kind: str, workplace: Path) -> bytes:
    lines = b"".join(b'{"id": "d%d", "text": "some text \\u00e9 %d", "n": %d}\n' % (i, i * i, i) for i in range(40))
    if kind.endswith(".zst"):
        return zstandard.ZstdCompressor().compress(lines)
    if kind.endswith(".gz"):
        import gzip

        return gzip.compress(lines, mtime=0)
    if kind.endswith(".parquet"):
        table = pa.table({"text": [f"text {i}" for i in range(200)], "id": [f"d{i}" for i in range(200)]})
        pq.write_table(table, workplace / "whole.parquet", row_group_size=50)
        return (workplace / "whole.parquet").read_bytes()
    return lines


def gguf_file(path: Path) -> bytes:
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_array("tokenizer.ggml.tokens", [f"piece{i}" for i in range(50)])
    writer.add_float32("llama.rope.freq_base", 1e4)
    writer.add_tensor("token_embd.weight", np.zeros((50, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def changed(data: bytes, chance: random.Random) -> bytes:
    """`data` with one to four changes."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        # Headers and footers decide most.
        at = chance.choice([at, min(at, 64), max(0, len(data) - 1 - at % 200)])
        some = data[at : at + chance.randint(1, 64)]
        match chance.randrange(8):
            case 0:
                data = (
                    data[:at] + bytes(byte ^ (1 << chance.randrange(8)) for byte in data[at : at + 1]) + data[at + 1 :]
                )
            case 1:
                data = data[:at] + bytes([chance.choice([0, 0x7F, 0x80, 0xFF])]) + data[at + 1 :]
            case 2:
                data = data[:at]
            case 3:
                data = data[:at] + data[at + len(some) :]
            case 4:
                other = chance.randrange(len(data) + 1)
                data = data[:other] + some + data[other:]
            case 5:
                layout = chance.choice(["<b", "<h", "<i", "<q"])
                size = struct.calcsize(layout)
                number = chance.choice(_NUMBERS) & (2 ** (8 * size) - 1)
                data = data[:at] + number.to_bytes(size, "little") + data[at + size :]
            case _:
                values = list(re.finditer(rb'-?\d+(?:\.\d+)?|"[^"\\]{0,80}"|true|false|null', data[:200_000]))
                if values:
                    value = chance.choice(values)
                    data = data[: value.start()] + chance.choice(_JSON_VALUES) + data[value.end() :]
    return data


@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_file_gives_a_named_error_or_a_value(kind: str, workplace: Path) -> None:
    child = BoundedProcess(read_file, cpu_seconds=SECONDS, memory_bytes=MEMORY_BYTES)
    files = whole_files(kind, workplace)
    path = workplace / kind
    for whole in files:
        path.write_bytes(whole)
        assert child.call(kind, str(path)) == "read"

    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(seed=st.integers(0, 2**63))
    def examples(seed: int) -> None:
        chance = random.Random(seed)
        path.write_bytes(changed(chance.choice(files), chance))
        child.call(kind, str(path))

    examples()
