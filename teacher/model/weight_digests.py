"""Digests of a teacher's weight files, computed once for each state of a file and kept in the user's cache.

A safetensors file also gets a digest of each of its tensors, in the same pass: the same weights are the same model,
however they are divided into files. Memory holds one small buffer for each file that is read.
"""

import contextlib
import hashlib
import json
import os
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from logitcask.schemas.errors import TeacherError
from logitcask.schemas.fingerprints import fingerprint
from logitcask.teacher.model.gguf_cache import cache_directory

_VERSION = 1
_CHUNK_BYTES = 4 << 20
# A file that changed within this time may change again without another modification time.
_SETTLED_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorDigest:
    """A tensor of a safetensors file: its name, dtype and shape, and the SHA-256 of its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightDigests:
    """A weight file: its SHA-256, and its tensors; none for a format other than safetensors."""

    sha256: str
    tensors: tuple[TensorDigest, ...]


def weight_digests(paths: Sequence[Path]) -> list[WeightDigests]:
    """The digests of weight files, in their order.

    Raises:
        TeacherError: A safetensors file is damaged.
    """
    with ThreadPoolExecutor(max(1, min(len(paths), os.cpu_count() or 1))) as pool:
        return list(pool.map(_digests, paths))


def fingerprint_of_tensors(files: Iterable[WeightDigests], config: dict[str, Any]) -> str:
    """Covers a configuration and all tensors, by name, dtype, shape and bytes."""
    tensors = sorted((one.name, one.dtype, list(one.shape), one.sha256) for file in files for one in file.tensors)
    return fingerprint({"config": config, "tensors": tensors})


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the tensors of a safetensors file begin, and its header without metadata.

    Raises:
        TeacherError: It is not a readable safetensors file.
    """
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > path.stat().st_size:
                raise ValueError(f"its header claims {size} bytes")
            header = json.loads(file.read(size))
    except (struct.error, ValueError) as e:
        raise TeacherError(f"{path} is not a readable safetensors file: {e}. Copy it again.") from e
    return 8 + size, {name: entry for name, entry in header.items() if name != "__metadata__"}


def _digests(path: Path) -> WeightDigests:
    path = path.resolve()
    status = path.stat()
    state = [str(path), status.st_size, status.st_mtime_ns, status.st_ino, _VERSION]
    kept = cache_directory().parent / "fingerprints" / f"{fingerprint(state)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        value = json.loads(kept.read_bytes())
        tensors = (TensorDigest(**{**one, "shape": tuple(one["shape"])}) for one in value["tensors"])
        return WeightDigests(sha256=value["sha256"], tensors=tuple(tensors))
    found = _compute(path)
    if time.time() - status.st_mtime > _SETTLED_SECONDS:
        _keep(kept, found)
    return found


def _keep(kept: Path, found: WeightDigests) -> None:
    """Writes a file of the cache; without a cache that can be written, files are read each time."""
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(asdict(found)))
        unfinished.replace(kept)


def _compute(path: Path) -> WeightDigests:
    start, header = read_header(path) if path.suffix == ".safetensors" else (0, {})
    whole = hashlib.sha256()
    tensors = []
    with path.open("rb") as file:
        for chunk in _read(file, start):
            whole.update(chunk)
        try:
            for name, entry in sorted(header.items(), key=lambda one: one[1]["data_offsets"]):
                begin, end = entry["data_offsets"]
                one = hashlib.sha256()
                for chunk in _read(file, end - begin):
                    whole.update(chunk)
                    one.update(chunk)
                if file.tell() - start != end:
                    raise ValueError(f"tensor {name!r} should end at {end}, not at {file.tell() - start}")
                tensors.append(
                    TensorDigest(name=name, dtype=entry["dtype"], shape=tuple(entry["shape"]), sha256=one.hexdigest())
                )
        except (KeyError, TypeError, ValueError) as e:
            raise TeacherError(f"{path} is not a readable safetensors file: {e}. Copy it again.") from e
        while chunk := file.read(_CHUNK_BYTES):
            whole.update(chunk)
    return WeightDigests(sha256=whole.hexdigest(), tensors=tuple(tensors))


def _read(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = file.read(min(size, _CHUNK_BYTES))
        if not chunk:
            return
        size -= len(chunk)
        yield chunk
