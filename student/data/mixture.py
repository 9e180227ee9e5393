"""Several datasets as one, mixed by weight. Windows are numbered over the datasets in order."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from torch.utils.data import Dataset

from logitcask.schemas.errors import FingerprintMismatchError, UsageError, VocabularyError
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.student.data.dataset import SoftTargetDataset, WindowSample
from logitcask.student.data.order import WindowSource
from logitcask.student.model.vocabulary_check import tokenizer_difference


class MixedDataset(Dataset[WindowSample]):
    """The windows of several datasets, one after another; a trainer takes them by weight.

    The teachers may differ, but ids must mean the same.

    Args:
        datasets: At least one.
        weights: How often to take windows from each, relative to the others; None: in proportion to its windows.

    Raises:
        UsageError: A different number of weights than datasets; datasets with and without sampled or tempered tails.
        FingerprintMismatchError, VocabularyError: The datasets' tokenizers or vocabulary sizes differ.
    """

    def __init__(self, datasets: Sequence[SoftTargetDataset], weights: Sequence[float] | None = None) -> None:
        self.datasets = tuple(datasets)
        self.weights = tuple(float(len(dataset)) for dataset in datasets) if weights is None else tuple(weights)
        if len(self.weights) != len(self.datasets):
            raise UsageError(f"{len(self.weights)} weights for {len(self.datasets)} datasets; give one for each")
        for dataset in self.datasets[1:]:
            _check_mixable(self.datasets[0], dataset)
        self._starts = [0, *accumulate(len(dataset) for dataset in self.datasets)]

    @property
    def metadata(self) -> ShardMetadata:
        """The metadata of the first dataset's shards."""
        return self.datasets[0].metadata

    @property
    def vocab_size(self) -> int:
        """V of the teachers' distributions."""
        return self.datasets[0].vocab_size

    def sources(self) -> tuple[WindowSource, ...]:
        """The sizes and weights on which the order of the windows depends."""
        parts = (dataset.sources()[0] for dataset in self.datasets)
        return tuple(replace(part, weight=weight) for part, weight in zip(parts, self.weights, strict=True))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> WindowSample:
        dataset, window = self._locate(index)
        return replace(dataset[window], index=index)

    def describe(self, index: int) -> str:
        """The shard and number of a window, for a message."""
        dataset, window = self._locate(index)
        return dataset.describe(window)

    def _locate(self, index: int) -> tuple[SoftTargetDataset, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        number = bisect_right(self._starts, index) - 1
        return self.datasets[number], index - self._starts[number]


WindowDataset = SoftTargetDataset | MixedDataset


def datasets_of(windows: WindowDataset) -> tuple[SoftTargetDataset, ...]:
    """The single datasets in `windows`."""
    return windows.datasets if isinstance(windows, MixedDataset) else (windows,)


def _check_mixable(first: SoftTargetDataset, other: SoftTargetDataset) -> None:
    """Refuses datasets whose windows cannot share a batch."""
    tokenizers = (first.metadata.tokenizer, other.metadata.tokenizer)
    if difference := tokenizer_difference(*tokenizers, names=(first.url, other.url)):
        raise FingerprintMismatchError(f"datasets cannot be mixed: {difference}; annotate both with one tokenizer")
    if first.vocab_size != other.vocab_size:
        raise VocabularyError(
            f"{first.url} and {other.url} cannot be mixed: their teachers predict {first.vocab_size} and "
            f"{other.vocab_size} ids; annotate both with teachers of one output size"
        )
    if _columns(first) != _columns(other):
        raise UsageError(
            f"{first.url} and {other.url} cannot be mixed: (sampled tails, tempered tails) are {_columns(first)} and "
            f"{_columns(other)}; annotate both with the same --head sampling and --temperatures"
        )


def _columns(dataset: SoftTargetDataset) -> tuple[bool, tuple[float, ...]]:
    targets = dataset[0].targets
    return bool(targets.tail_samples), tuple(sorted(targets.tempered_log_tails))
