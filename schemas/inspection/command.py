"""`logitcask inspect`: shows a dataset, without a model or a job."""

from dataclasses import dataclass

from logitcask.schemas.inspection.settings import InspectSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspect(InspectSettings):
    """Show a dataset and the teacher's distributions: a summary, single windows, or a comparison with another dataset.

    The summary comes from one small file (the snapshot), whatever the size of the dataset. Windows are numbered from 0
    over all shards of the snapshot. Exit status: 0 success; 1 nothing found, or the shards contradict the snapshot; 2
    bad usage.

    Example:
        logitcask inspect OUT --window 3 --rows 0:40
    """

    def run(self) -> int:
        from logitcask.schemas.inspection.run import run

        return run(self)
