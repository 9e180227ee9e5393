"""Releases: workers need the driver's code."""

import pytest

from logitcask.pipeline.runners.release import release, require_release
from logitcask.schemas.errors import ClusterError


def test_the_same_release_is_accepted() -> None:
    require_release(release())
    require_release(None)


def test_another_release_is_refused_with_both_names() -> None:
    with pytest.raises(ClusterError) as caught:
        require_release("0.0.1+abc")
    assert f"a worker has logitcask {release()}, the driver 0.0.1+abc" in str(caught.value)
