"""Simulates a job of a million stub units: lists them, resumes at 90 %, finishes and writes a snapshot.

    python bench/scale.py --units 1000000

Only the units and the store are stubs: the store generates the files of finished units (a real target shard of a few
rows, and its record). Everything else is the code of the product: units, listings, waves through Beam, segments,
snapshot, `inspect`. Prints the seconds of each phase and the peak memory of the process so far.
"""

import argparse
import contextlib
import dataclasses
import io
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import apache_beam as beam
import fsspec
import numpy as np
from fsspec import AbstractFileSystem
from memory import peak_bytes

from logitcask.pipeline.corpus.files import CorpusFile
from logitcask.pipeline.execution.stages import Stage, finish_stage
from logitcask.pipeline.finalization.finalize import BLOCK_UNITS, finalize, gather_segments, read_tokenized_corpus
from logitcask.pipeline.finalization.packed_shard_list import entry_rows
from logitcask.pipeline.finalization.segments import Segment, UnitTotals, segment_name, write_segment
from logitcask.pipeline.runners.settings import RunnerSettings
from logitcask.pipeline.units.annotation_units import AnnotationUnit, AnnotationUnitTable, annotation_unit
from logitcask.pipeline.units.finished import finished_annotation_units
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.pipeline.units.leases import UnitLimits
from logitcask.pipeline.units.token_units import TokenUnit, make_token_units, token_shard_name
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.split_summary import SplitSummary, sum_records
from logitcask.schemas.dataset.token_unit_record import TokenShard, TokenUnitRecord
from logitcask.schemas.fingerprints import fingerprint
from logitcask.schemas.format.metadata import ShardMetadata, TeacherInfo, TokenizerInfo
from logitcask.schemas.format.scheme import ThresholdScheme
from logitcask.schemas.format.targets import Part, Targets, Windows
from logitcask.schemas.format.writer import encode_shard
from logitcask.schemas.seals import sealed
from logitcask.schemas.stats.target_statistics import Statistics

OUT = "stub://out"
SHARDS_PER_UNIT = 8
POSITIONS_PER_SHARD = 2_500_000
FINGERPRINT = "stub"


class StubStore(AbstractFileSystem):
    """An object store in which the units of `done` are finished; written files go to a local directory."""

    protocol = "stub"
    cachable = False
    directory: ClassVar[Path]
    token_units: ClassVar[Sequence[TokenUnit]]
    done: ClassVar[bytearray]
    shard: ClassVar[bytes]
    record: ClassVar[UnitRecord]
    template: ClassVar[dict[str, Any]]

    def find(self, path: str, maxdepth: Any = None, withdirs: Any = False, detail: bool = False, **kwargs: Any) -> Any:
        relative = self._relative(path)
        found = {}
        if relative.startswith("targets/"):
            found = dict(self._listed(relative.removeprefix("targets/"), kwargs["prefix"]))
        for file in sorted((self.directory / relative).rglob("*")):
            if file.is_file():
                found |= self._info(f"out/{file.relative_to(self.directory)}", file.stat().st_size)
        return found if detail else sorted(found)

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
        return self._read(self._relative(path))[start:end]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        return io.BytesIO(self._read(self._relative(path)))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return next(iter(self._info(path, len(self._read(self._relative(path)))).values()))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        file = self.directory / self._relative(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb" if mode == "create" else "wb") as opened:
            opened.write(value)

    def _listed(self, split: str, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
        first = int(prefix) * 100
        for number in range(first, min(first + 100, len(self.token_units))):
            for index, shard in enumerate(stub_shards(self.token_units[number])):
                if shard.split == split and self.done[number * SHARDS_PER_UNIT + index]:
                    stem = f"out/targets/{split}/{annotation_unit(shard, FINGERPRINT).name}"
                    yield from self._info(f"{stem}.parquet", len(self.shard)).items()
                    yield from self._info(f"{stem}.json", 2000).items()

    def _read(self, relative: str) -> bytes:
        if match := re.fullmatch(r"tokens/units/(\d{6})-.*", relative):
            return sealed(stub_token_record(self.token_units[int(match[1])]).to_json())
        if match := re.fullmatch(r"targets/([a-z-]+)/((\d{6})-h?(\d{4})-\w+)\.(parquet|json)", relative):
            index = int(match[3]) * SHARDS_PER_UNIT + int(match[4]) + (match[1] == "held-out") * (SHARDS_PER_UNIT - 1)
            if not self.done[index]:
                raise FileNotFoundError(relative)
            if match[5] == "parquet":
                return self.shard
            return sealed({**self.template, "name": match[2], "split": match[1]})
        return (self.directory / relative).read_bytes()

    def _info(self, path: str, size: int) -> dict[str, dict[str, Any]]:
        return {path: {"name": path, "size": size, "type": "file", "ETag": "x"}}

    def _relative(self, path: str) -> str:
        return self._strip_protocol(path).removeprefix("out").lstrip("/")


@dataclasses.dataclass
class StubUnits(beam.PTransform):
    """Finishes units immediately in the process of the driver, which holds the state of the store."""

    heartbeats: Heartbeats

    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | beam.Reshuffle() | beam.Map(self._finish) | "Commit" >> beam.Reshuffle()

    def _finish(self, unit: AnnotationUnit) -> str:
        StubStore.done[unit_index(unit)] = 1
        return unit.name


def unit_index(unit: AnnotationUnit) -> int:
    number, shard, _ = unit.name.split("-")
    return int(number) * SHARDS_PER_UNIT + (SHARDS_PER_UNIT - 1 if shard.startswith("h") else int(shard))


def stub_shards(unit: TokenUnit) -> list[TokenShard]:
    """Seven training shards and one held-out shard."""
    places = [("train", index) for index in range(SHARDS_PER_UNIT - 1)] + [("held-out", 0)]
    return [
        TokenShard(
            name=token_shard_name(unit, split, index),  # pyright: ignore[reportArgumentType]
            split=split,  # pyright: ignore[reportArgumentType]
            num_windows=POSITIONS_PER_SHARD // 1024,
            num_positions=POSITIONS_PER_SHARD,
            num_documents=2000,
            footer_digest=f"sha256:{fingerprint([unit.name, split, index]) * 2}",
        )
        for split, index in places
    ]


def stub_token_record(unit: TokenUnit) -> TokenUnitRecord:
    return TokenUnitRecord(
        name=unit.name, num_documents=2000 * SHARDS_PER_UNIT, rejected={}, shards=tuple(stub_shards(unit))
    )


def stub_shard() -> tuple[bytes, UnitRecord]:
    """A real target shard of 64 rows, and the record of its unit."""
    rng, rows = np.random.default_rng(0), 64
    windows = Windows(
        token=rng.integers(0, 100, rows).astype(np.int32),
        kind=np.zeros(rows, np.uint8),
        part=np.zeros(rows, np.int32),
        window_offsets=np.array([0, rows]),
        parts=(Part(id="d", source="s", offset=0),),
    )
    label = np.where(windows.has_label(), np.float32(-2), np.float32(np.nan)).astype(np.float32)
    targets = Targets(
        head_ids=np.arange(rows, dtype=np.int32),
        head_log_probs=np.full(rows, -0.5, np.float32),
        head_offsets=np.arange(rows + 1),
        log_tail=np.full(rows, -0.93, np.float32),
        log_next=label,
        entropy=rng.uniform(0, 8, rows).astype(np.float32),
    )
    tokenizer = TokenizerInfo(
        name="t", fingerprint="f", vocabulary_fingerprint="v", vocab_size=100, bos_id=None, eos_id=None
    )
    teacher = TeacherInfo(
        name="t", fingerprint="f", vocab_size=100, dtype="float32", architecture="a", num_parameters=1, licence=None
    )
    metadata = ShardMetadata(
        kind="targets", split="train", window_tokens=64, tokenizer=tokenizer, teacher=teacher, scheme=ThresholdScheme()
    )
    shard = encode_shard(windows, targets, metadata)
    record = UnitRecord(
        name="u",
        kind="targets",
        split="train",
        num_documents=2000,
        statistics=Statistics.of(windows, targets),
    ).of_shard(shard)
    return shard.data, record


def leave_segments(table: AnnotationUnitTable, num_blocks: int) -> None:
    """Writes the segments of an earlier, killed run. All stub units have equal totals, so they are summed only once."""
    totals: dict[str, dict[int, SplitSummary]] = {"train": {}, "held-out": {}}
    for block in range(num_blocks):
        units = table[block * BLOCK_UNITS : (block + 1) * BLOCK_UNITS]
        records = [dataclasses.replace(StubStore.record, name=unit.name, split=unit.split) for unit in units]
        splits = {}
        for split, known in totals.items():
            of_split = [record for record in records if record.split == split]
            if len(of_split) not in known:
                known[len(of_split)] = sum_records(of_split)[split]
            splits[split] = known[len(of_split)]
        segment = Segment(rows=entry_rows(records), totals=UnitTotals(num_units=len(units), splits=splits))
        write_segment(OUT, segment_name(units[0].name, units), segment)


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Prints the time of a phase and the peak memory so far."""
    started_seconds = time.perf_counter()
    yield
    seconds = time.perf_counter() - started_seconds
    print(f"{name:<44} {seconds:8.1f} s   {peak_bytes() / 1e6:7.0f} MB", flush=True)


def run(num_units: int, directory: Path) -> int:
    """Runs the simulation; returns the peak memory of the process in bytes."""
    fsspec.register_implementation("stub", StubStore, clobber=True)
    StubStore.directory = directory
    StubStore.shard, StubStore.record = stub_shard()
    StubStore.template = StubStore.record.to_json()
    StubStore.done = bytearray(num_units)
    num_files = num_units // SHARDS_PER_UNIT
    with phase(f"make {num_files:,} token units"):
        files = [
            CorpusFile(
                url=f"s3://c/{i}.txt", name=f"{i}.txt", format="text", compression=None, size_bytes=32 << 20, etag="e"
            )
            for i in range(num_files)
        ]
        StubStore.token_units = make_token_units(files, FINGERPRINT, lambda _: ())
        del files
    num_done = num_units * 9 // 10
    in_another_process(earlier_run, num_units, num_done)
    with phase(f"read {num_units:,} annotation units from a segment"):
        tokenized = read_tokenized_corpus(OUT, StubStore.token_units, FINGERPRINT)
    units = tokenized.units
    StubStore.done[:num_done] = b"\1" * num_done
    stage = Stage(
        label="annotate",
        measure="tokens",
        units=units,
        finished=lambda wave: finished_annotation_units(OUT, wave),
        size=lambda unit: unit.tokens.num_positions,
        transform=lambda heartbeats, _: StubUnits(heartbeats),
        gather=lambda start, stop: gather_segments(OUT, units, start, stop),
    )
    with phase("list units, finish the last 10 % in waves"):
        result = finish_stage(stage, RunnerSettings(), UnitLimits(out=OUT), 1, quiet=True)
    assert result.num_units == num_units - num_done, result
    with phase("check, gather and write the snapshot"):
        snapshot = finalize(OUT, Identity(), tokenized)
    assert snapshot.complete
    assert snapshot.total().num_shards == num_units
    assert snapshot.total().num_documents == snapshot.num_documents_in
    with phase("logitcask inspect"):
        command = [sys.executable, "-m", "logitcask.schemas.cli", "inspect", str(directory)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return peak_bytes()


def earlier_run(num_units: int, num_done: int) -> None:
    """The killed run: reads the annotation units from the records of the token units, and leaves segments."""
    with phase(f"read {num_units:,} annotation units from records"):
        units = read_tokenized_corpus(OUT, StubStore.token_units, FINGERPRINT).units
        assert len(units) == num_units
    with phase(f"write segments of {num_done:,} finished units"):
        leave_segments(units, num_done // BLOCK_UNITS)


def in_another_process(function: Callable[..., None], *arguments: int) -> None:
    """Calls a function in a fork of this process, which has no threads yet."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=1_000_000, help="number of annotation units")
    with tempfile.TemporaryDirectory() as temporary:
        run(parser.parse_args().units, Path(temporary))
