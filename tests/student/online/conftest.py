"""The tiny teacher's own targets."""

import pytest
from annotated import commit_annotated, two_parts

from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.snapshot_writer import write_snapshot
from logitcask.schemas.format.scheme import TopKScheme
from logitcask.schemas.format.targets import Windows


@pytest.fixture(scope="module")
def scheme() -> TopKScheme:
    return TopKScheme(k=40)


@pytest.fixture(scope="module")
def dataset_url(tiny_teacher, scheme, tmp_path_factory) -> str:
    """The tiny teacher's own targets: four windows to train on, two held out."""
    out = tmp_path_factory.mktemp("annotated")
    records = []
    for split, numbers in (("train", range(4)), ("held-out", range(4, 6))):
        # The second part's first row has no target.
        windows = Windows.concatenate([two_parts(number, second_at=12, prompts=(12,)) for number in numbers])
        records.append(commit_annotated(str(out), str(tiny_teacher), scheme, split, windows))
    write_snapshot(str(out), complete=True, identity=Identity(), records=records, num_documents_in=0, rejected={})
    return str(out)
