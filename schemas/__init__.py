"""What a shard is: targets, their encoding, and datasets of shards.

The lowest layer. It never imports torch, so that reading statistics or checking files stays light. Modules import
pyarrow, numpy and fsspec where they need them; this package imports nothing.

    Dataset        Reads a dataset.
    DatasetWriter  Writes a dataset from windows and targets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logitcask.schemas.dataset.dataset import Dataset as Dataset
    from logitcask.schemas.dataset.dataset_writer import DatasetWriter as DatasetWriter

_MODULES = {"Dataset": "dataset.dataset", "DatasetWriter": "dataset.dataset_writer"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
