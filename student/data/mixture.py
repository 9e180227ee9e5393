"""Several datasets as one, taken by weight: windows are numbered over them in order."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from torch.utils.data import Dataset

from logitcask.schemas.errors import FingerprintMismatchError, UsageError, VocabularyError
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.student.data.dataset import SoftTargetDataset, WindowSample
from logitcask.student.data.order import WindowSource


class MixedDataset(Dataset[WindowSample]):
    """The windows of several datasets, one after another; a trainer takes them by weight.

    Teachers may differ, what ids mean may not.

    Args:
        datasets: At least one.
        weights: How often each one's windows are taken, in relation to the others'; None: as many as it has.

    Raises:
        UsageError: Not as many weights as datasets, or shards with and without sampled tails or tempered tails.
        FingerprintMismatchError, VocabularyError: The datasets' tokenizers or vocabulary sizes differ.
    """

    def __init__(self, datasets: Sequence[SoftTargetDataset], weights: Sequence[float] | None = None) -> None:
        self.datasets = tuple(datasets)
        self.weights = tuple(float(len(dataset)) for dataset in datasets) if weights is None else tuple(weights)
        if len(self.weights) != len(self.datasets):
            raise UsageError(f"{len(self.weights)} weights for {len(self.datasets)} datasets; give each one its own")
        for dataset in self.datasets[1:]:
            _check_alike(self.datasets[0], dataset)
        self._starts = [0, *accumulate(len(dataset) for dataset in self.datasets)]

    @property
    def metadata(self) -> ShardMetadata:
        """Of the first dataset's shards."""
        return self.datasets[0].metadata

    @property
    def vocab_size(self) -> int:
        """V of the teachers' distributions."""
        return self.datasets[0].vocab_size

    def sources(self) -> tuple[WindowSource, ...]:
        """What the order of the windows depends on."""
        parts = (dataset.sources()[0] for dataset in self.datasets)
        return tuple(replace(part, weight=weight) for part, weight in zip(parts, self.weights, strict=True))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> WindowSample:
        dataset, window = self._locate(index)
        return replace(dataset[window], index=index)

    def describe(self, index: int) -> str:
        """Where a window lies, for a message."""
        dataset, window = self._locate(index)
        return dataset.describe(window)

    def _locate(self, index: int) -> tuple[SoftTargetDataset, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        number = bisect_right(self._starts, index) - 1
        return self.datasets[number], index - self._starts[number]


WindowDataset = SoftTargetDataset | MixedDataset


def datasets_of(windows: WindowDataset) -> tuple[SoftTargetDataset, ...]:
    """The datasets that windows come from."""
    return windows.datasets if isinstance(windows, MixedDataset) else (windows,)


def _check_alike(first: SoftTargetDataset, other: SoftTargetDataset) -> None:
    """Refuses datasets whose windows cannot share a batch."""
    one, two = first.metadata.tokenizer, other.metadata.tokenizer
    for what, a, b in [
        ("vocabulary", one.vocabulary_fingerprint, two.vocabulary_fingerprint),
        ("tokenizer", one.fingerprint, two.fingerprint),
    ]:
        if a != b:
            raise FingerprintMismatchError(
                f"{first.url} and {other.url} cannot be mixed: their {what} fingerprints are {a} and {b}; annotate "
                "both corpora with teachers of one tokenizer"
            )
    if first.vocab_size != other.vocab_size:
        raise VocabularyError(
            f"{first.url} and {other.url} cannot be mixed: their teachers predict {first.vocab_size} and "
            f"{other.vocab_size} ids; annotate both with teachers of one output size"
        )
    if _columns(first) != _columns(other):
        raise UsageError(
            f"{first.url} and {other.url} cannot be mixed: they hold (sampled tails, tempered tails) {_columns(first)} "
            f"and {_columns(other)}; annotate both with the same --head sampling and --temperatures"
        )


def _columns(dataset: SoftTargetDataset) -> tuple[bool, tuple[float, ...]]:
    targets = dataset[0].targets
    return bool(targets.tail_samples), tuple(sorted(targets.tempered_log_tails))
