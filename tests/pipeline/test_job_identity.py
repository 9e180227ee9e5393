"""A job's identity: its inputs must match each other, and the dataset that it resumes."""

import json
import shutil
from pathlib import Path

import pytest
from small_job import run, settings

from logitcask.schemas.errors import ConfigurationMismatchError, VocabularyError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")


def test_changed_settings_are_refused_as_options_with_both_values(
    job_out: Path, job_corpus: Path, tiny_teacher: Path
) -> None:
    with pytest.raises(ConfigurationMismatchError) as caught:
        run(settings(job_corpus, tiny_teacher, job_out, tau=0.01, window=32, entropy=False))
    for line in ("--tau: 0.001 in the output, 0.01 now", "--window: 64 in", "--entropy: True in the output"):
        assert line in str(caught.value)
    assert str(caught.value).count(" in the output, ") == 3


def test_labels_of_the_teacher_are_those_of_the_first_run(
    job_out: Path, job_corpus: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    elsewhere = Path(shutil.copytree(tiny_teacher, tmp_path / "elsewhere"))
    (elsewhere / "README.md").write_text("---\nlicense: mit\n---\n")
    shutil.rmtree(job_out / "targets")
    result = run(settings(job_corpus, elsewhere, job_out))
    assert result.num_units > 0
    assert result.snapshot.complete
    assert result.snapshot.identity.teacher is not None
    assert (result.snapshot.identity.teacher.name, result.snapshot.identity.teacher.licence) == (
        tiny_teacher.name,
        None,
    )


def test_a_tokenizer_whose_ids_exceed_the_vocabulary_is_refused(
    job_corpus: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    teacher = Path(shutil.copytree(tiny_teacher, tmp_path / "teacher"))
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps({**config, "vocab_size": 500}))
    with pytest.raises(VocabularyError, match="999"):
        run(settings(job_corpus, teacher, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
