"""After the stages: storage is the truth. What stands there is listed, checked, added up, and put into a snapshot."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.plan import AnnotationUnit, TokenUnit
from pipeline.resolving import ResolvedJob
from pipeline.tokenizing import TokenizedUnit, read_tokenized_unit
from schemas import storage
from schemas.dataset import Snapshot, record_path, shard_path, write_snapshot
from schemas.errors import CorruptShardError, MissingShardError
from schemas.reader import ShardReader
from schemas.records import UnitRecord, read_record
from schemas.shard import Split

# Opening a shard on an object store is mostly waiting.
_NUM_READERS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Accounting:
    """Where the corpus's documents went.

    Attributes:
        num_documents: Documents found: annotated + rejected once the job is complete.
        rejected: Reason to number of documents.
    """

    num_documents: int
    rejected: dict[str, int]


def read_tokenized_units(out: str, units: Sequence[TokenUnit]) -> list[TokenizedUnit]:
    """The records of all token units, in order."""
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        return list(pool.map(lambda unit: read_tokenized_unit(out, unit.name), units))


def account(tokenized: Sequence[TokenizedUnit], records: Sequence[UnitRecord]) -> Accounting:
    """Adds up documents over both stages."""
    rejected: dict[str, int] = {}
    for one in (*tokenized, *records):
        for reason, count in one.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    return Accounting(num_documents=sum(unit.num_documents for unit in tokenized), rejected=rejected)


def finished_names(out: str, kind: str) -> set[str]:
    """Names of units whose record and shard both stand, by one listing."""
    urls = [file.url for file in storage.list_files(storage.join(out, kind))]
    names = {suffix: {_stem(url) for url in urls if url.endswith(suffix)} for suffix in (".json", ".parquet")}
    return names[".json"] & names[".parquet"]


def finished_units(out: str, units: Sequence[AnnotationUnit]) -> set[str]:
    """Names of annotation units that are done or set aside."""
    done = finished_names(out, "targets")
    rejected = {
        record.name
        for record in read_unit_records(out, [unit for unit in units if unit.name not in done])
        if record.status == "rejected"
    }
    return done | rejected


def read_unit_records(out: str, units: Sequence[AnnotationUnit]) -> list[UnitRecord]:
    """The records that stand for these units, in order."""

    def read(unit: AnnotationUnit) -> UnitRecord | None:
        try:
            return read_record(storage.join(out, record_path("targets", unit.split, unit.name)))
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(_NUM_READERS) as pool:
        return [record for record in pool.map(read, units) if record is not None]


def check_shards(out: str, records: Sequence[UnitRecord]) -> None:
    """Checks that every finished shard is there, as long as its record says, with the footer its record says.

    Raises:
        MissingShardError, CorruptShardError: One is not.
    """
    done = [record for record in records if record.status == "done"]
    sizes = {_key(file.url): file.size_bytes for file in storage.list_files(storage.join(out, "targets"))}
    for record in done:
        path = shard_path("targets", record.split, record.name)
        found = sizes.get(_key(path))
        if found is None:
            raise MissingShardError(f"{storage.redact(storage.join(out, path))}: gone; run the same command again")
        if found != record.size_bytes:
            raise CorruptShardError(
                f"{storage.redact(storage.join(out, path))}: {found} bytes, its record says {record.size_bytes}; "
                "remove it and run the same command again"
            )
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        list(pool.map(lambda record: _check_footer(out, record), done))


def finalize(
    job: ResolvedJob, tokenized: Sequence[TokenizedUnit], units: Sequence[AnnotationUnit], *, check: bool = True
) -> Snapshot:
    """Writes the snapshot of what stands; it is complete if every unit is done or set aside.

    Args:
        job: The job.
        tokenized: Records of all token units.
        units: All annotation units.
        check: Whether the shards are looked at first; not where the job failed anyway.

    Raises:
        MissingShardError, CorruptShardError: A shard is not as its record says.
    """
    records = read_unit_records(job.out, units)
    if check:
        check_shards(job.out, records)
    accounting = account(tokenized, records)
    return write_snapshot(
        job.out,
        complete=len(records) == len(units),
        identity=job.identity,
        records=records,
        num_documents_in=accounting.num_documents,
        rejected=accounting.rejected,
    )


def _check_footer(out: str, record: UnitRecord) -> None:
    url = storage.join(out, shard_path("targets", record.split, record.name))
    ShardReader(url, footer_digest=record.footer_digest).close()


def _stem(url: str) -> str:
    return storage.file_name(url).rpartition(".")[0]


def _key(url: str) -> tuple[Split | str, str]:
    """Split and file name, however the store spells its URLs."""
    *_, split, name = url.split("/")
    return split, name
