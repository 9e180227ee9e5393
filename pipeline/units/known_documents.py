"""The documents of a dataset as 64-bit hashes of their tokens, so that no document is annotated twice.

    OUT/tokens/documents/<unit>.bin        the hashes of one token unit's documents, sorted
    OUT/segments/known-<corpus>-<i>.bin    all hashes that an append leaves out, by their first bits; removed at its end

Hashes are unsigned, little-endian, of 8 bytes each: a hundred million documents are 800 MB in files. An append maps
those files into memory and reads the pages that it needs; building them takes the memory of one of their parts. Among a
hundred million documents, a new one is mistaken for one of them with a probability of 5e-12.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path

import numpy as np

from logitcask.pipeline.units.corpus_plan import CorpusPlan, read_plan
from logitcask.schemas import storage
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.targets import Kind

_TYPE = np.dtype("<u8")
# Hashes in one file of an index: 8 MB.
_PART_HASHES = 1 << 20


def document_hash(ids: np.ndarray, eos_id: int | None) -> int:
    """The hash of a document's token ids, integers [L] without BOS; an EOS at the end does not count."""
    tokens = np.asarray(ids, "<i4")
    if eos_id is not None and len(tokens) and tokens[-1] == eos_id:
        tokens = tokens[:-1]
    return int.from_bytes(blake2b(tokens.tobytes(), digest_size=8).digest(), "little")


def write_unit_hashes(out: str, unit: str, hashes: Iterable[int]) -> None:
    """Records the hashes of a token unit's documents, before the unit's record."""
    data = np.unique(np.fromiter(hashes, _TYPE)).tobytes()
    storage.create(_unit_url(out, unit), data)


def read_unit_hashes(out: str, unit: str) -> np.ndarray | None:
    """The hashes of a finished token unit, sorted; None if an earlier release tokenized it."""
    try:
        return np.frombuffer(storage.read_bytes(_unit_url(out, unit)), _TYPE)
    except FileNotFoundError:
        return None


def hashes_of_shards(snapshot: Snapshot) -> Iterator[np.ndarray]:
    """The hashes of the documents in a snapshot's shards, for datasets whose units have recorded none.

    Reads the tokens of every shard. A document that was divided between shards is found too.
    """
    tokenizer = snapshot.identity.tokenizer
    bos_id, eos_id = (tokenizer.bos_id, tokenizer.eos_id) if tokenizer else (None, None)
    pieces: dict[tuple[str, str], list[np.ndarray]] = {}
    unit = None
    for entry in snapshot.each_shard():
        if (entry.split, entry.name.partition("-")[0]) != unit:
            yield _hash_all(pieces, eos_id)
            pieces, unit = {}, (entry.split, entry.name.partition("-")[0])
        with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
            windows = reader.read_stored(options=(), ids=False).windows
        starts = np.flatnonzero(np.diff(windows.part, prepend=-1))
        for part, start, stop in zip(windows.part[starts], starts, [*starts[1:], windows.num_positions], strict=True):
            first = start + (bos_id is not None and windows.token[start] == bos_id)
            rows = slice(first, stop)
            new = windows.token[rows][windows.kind[rows] != Kind.CONTEXT]
            pieces.setdefault((windows.parts[part].id, windows.parts[part].source), []).append(new)
    yield _hash_all(pieces, eos_id)


def write_index(out: str, name: str, sources: Iterable[np.ndarray], num_hashes: int) -> tuple[str, ...]:
    """Writes all hashes, sorted and divided by their first bits.

    Args:
        out: The dataset's directory.
        name: Of the append.
        sources: Sorted arrays of hashes.
        num_hashes: About how many they are.

    Returns:
        The URLs of the files: a power of two.
    """
    num_parts = 1 << max(0, (num_hashes // _PART_HASHES).bit_length())
    urls = tuple(_index_url(out, name, part) for part in range(num_parts))
    bounds = np.array([part * (2**64 // num_parts) for part in range(1, num_parts)], _TYPE)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        paths = [Path(directory, str(part)) for part in range(num_parts)]
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for hashes in sources:
            for file, one in zip(files, np.split(hashes, np.searchsorted(hashes, bounds)), strict=True):
                file.write(one.tobytes())
        for file, path, url in zip(files, paths, urls, strict=True):
            file.flush()
            storage.create(url, np.unique(np.fromfile(path, _TYPE)).tobytes())
    return urls


def known_index(out: str, plan: CorpusPlan, latest: Snapshot) -> tuple[str, ...]:
    """Writes the index of all documents of the corpora that a plan leaves out; the URLs of its files.

    Raises:
        CorruptShardError: A file is damaged.
    """
    units: list[str] = []
    is_recorded = True
    for corpus in plan.known:
        other = read_plan(out, corpus)
        is_recorded = is_recorded and other is not None
        units += [unit.name for unit in other.units] if other else []
    missing = []

    def sources() -> Iterator[np.ndarray]:
        for unit in units:
            hashes = read_unit_hashes(out, unit)
            if hashes is None:
                missing.append(unit)
            else:
                yield hashes
        if missing or not is_recorded:
            yield from hashes_of_shards(latest)

    return write_index(out, plan.info.fingerprint, sources(), latest.num_documents_in)


def remove_index(out: str, name: str) -> None:
    """Removes the files of an index."""
    for file in storage.list_members(out, "segments", f"known-{name}-"):
        storage.remove(file.url)


class KnownDocuments:
    """An index, opened: on a local disk its files are mapped into memory.

    Args:
        urls: As `write_index` returned them; none: no document is known.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._parts = [_open(url) for url in urls]
        self._shift = 64 - (len(urls) - 1).bit_length() if urls else 64

    def __contains__(self, hash_: int) -> bool:
        if not self._parts:
            return False
        part = self._parts[hash_ >> self._shift]
        index = int(np.searchsorted(part, _TYPE.type(hash_)))
        return index < len(part) and int(part[index]) == hash_


def _open(url: str) -> np.ndarray:
    if storage.is_local(url):
        path = Path(storage.absolute(url))
        return np.memmap(path, _TYPE, "r") if path.stat().st_size else np.empty(0, _TYPE)
    return np.frombuffer(storage.read_bytes(url), _TYPE)


def _hash_all(pieces: dict[tuple[str, str], list[np.ndarray]], eos_id: int | None) -> np.ndarray:
    return np.unique(np.fromiter((document_hash(np.concatenate(one), eos_id) for one in pieces.values()), _TYPE))


def _unit_url(out: str, unit: str) -> str:
    return storage.inside(out, "tokens", "documents", f"{unit}.bin")


def _index_url(out: str, name: str, part: int) -> str:
    return storage.inside(out, "segments", f"known-{name}-{part:04d}.bin")
