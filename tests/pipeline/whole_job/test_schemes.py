"""Whole jobs with sampling schemes and extra temperatures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_job import blocks, run, settings

from logitcask.schemas.errors import ConfigurationMismatchError
from logitcask.schemas.inspection.summary import describe
from logitcask.schemas.inspection.summary_view import print_summary
from logitcask.schemas.maintenance.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")


@pytest.mark.parametrize(
    ("head", "words"),
    [("random-sampling", "none: 50 random draws a position"), ("threshold-sampling", "p ≥ 0.05, the exact tail")],
)
@pytest.mark.slow
def test_sampled_datasets_are_valid_and_described(
    job_corpus: Path, tiny_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], head: Any, words: str
) -> None:
    result = run(settings(job_corpus, tiny_teacher, tmp_path / "out", head=head, theta=0.05, replicas=2))
    assert verify(result.out).faults == ()
    block = next(blocks(result.out))
    assert block.targets is not None
    first, second = block.targets.tail_samples
    np.testing.assert_array_equal(first.offsets, second.offsets)
    assert not np.array_equal(first.ids, second.ids)
    print_summary(describe(result.snapshot))
    assert words in capsys.readouterr().out
    with pytest.raises(ConfigurationMismatchError, match=r"--replicas: 2 in the output, 1 now"):
        run(settings(job_corpus, tiny_teacher, tmp_path / "out", head=head, theta=0.05))


@pytest.mark.slow
def test_extra_temperatures_are_stored_and_are_part_of_the_settings(
    job_corpus: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    result = run(settings(job_corpus, tiny_teacher, tmp_path / "out", temperatures=(4.0, 1.0, 2.0)))
    assert verify(result.out).faults == ()
    targets = next(blocks(result.out)).targets
    assert targets is not None
    assert sorted(targets.tempered_log_tails) == [2.0, 4.0]
    with pytest.raises(ConfigurationMismatchError, match="temperatures"):
        run(settings(job_corpus, tiny_teacher, tmp_path / "out"))
