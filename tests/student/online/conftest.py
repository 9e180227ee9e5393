"""The tiny teacher's own targets."""

import pytest
from annotated import two_parts, write_scored_dataset

from logitcask.schemas.format.scheme import TopKScheme
from logitcask.schemas.format.targets import Windows


@pytest.fixture(scope="module")
def scheme() -> TopKScheme:
    return TopKScheme(k=40)


@pytest.fixture(scope="module")
def dataset_url(tiny_teacher, scheme, tmp_path_factory) -> str:
    """The tiny teacher's own targets: four windows to train on, two held out."""
    windows = {
        # The second part's first row has no target.
        split: Windows.concatenate([two_parts(number, second_at=12, prompts=(12,)) for number in numbers])
        for split, numbers in (("train", range(4)), ("held-out", range(4, 6)))
    }
    return write_scored_dataset(str(tmp_path_factory.mktemp("scored")), str(tiny_teacher), scheme, windows)
