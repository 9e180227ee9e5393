"""Token shards and annotation units of a dataset without files."""

from collections.abc import Iterable

from logitcask.pipeline.units.annotation_units import AnnotationUnit, AnnotationUnitTable, shard_table
from logitcask.schemas.dataset.commit import commit_record
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.token_unit_record import TokenShard


def token_shards(count: int) -> list[TokenShard]:
    """Three training shards and one held-out shard for each token unit."""
    return [
        TokenShard(
            name=f"{index // 4:06d}-{'h' if index % 4 == 3 else ''}{index % 4 % 3:04d}-abc",
            split="held-out" if index % 4 == 3 else "train",
            num_windows=1,
            num_positions=10 + index,
            num_documents=2,
            footer_digest=f"d{index}",
        )
        for index in range(count)
    ]


def unit_table(count: int) -> AnnotationUnitTable:
    """The annotation units of that many token shards."""
    return AnnotationUnitTable(shard_table(token_shards(count)), "teacher")


def reject(out: str, units: Iterable[AnnotationUnit]) -> None:
    """Finishes units by rejecting their documents, so that they have no shard to be checked."""
    for unit in units:
        record = UnitRecord(name=unit.name, kind="targets", split=unit.split, status="rejected", rejected={"nan": 2})
        commit_record(out, record)
