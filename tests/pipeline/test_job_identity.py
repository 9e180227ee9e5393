"""A job's identity: its inputs must match each other, and the dataset that it resumes."""

import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest
from chat_tokenizers import CHATML, byte_level_backend
from edited_json import edit_json
from small_job import run, settings
from transformers import PreTrainedTokenizerFast

from logitcask.pipeline import job_identity
from logitcask.pipeline.resolve import resolve_job
from logitcask.schemas.errors import ConfigurationMismatchError, TokenizerError, UsageError, VocabularyError
from logitcask.teacher.text.rules import TOKEN_RULES

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


DATED = "{{ strftime_now('%d %B %Y') }}" + CHATML


@pytest.fixture
def chat_teacher(tiny_teacher: Path, tmp_path: Path) -> Path:
    """The tiny teacher with a byte-level tokenizer whose chat template asks for the date."""
    teacher = Path(shutil.copytree(tiny_teacher, tmp_path / "teacher"))
    (teacher / "tokenizer.model").unlink()
    backend = byte_level_backend(trim_offsets=True)
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", chat_template=DATED).save_pretrained(
        teacher
    )
    return teacher


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello <|im_end|>"}]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"text": turns}) + "\n" for _ in range(3)))
    return tmp_path / "chats.jsonl"


class NextDay(datetime):
    @classmethod
    def now(cls, tz=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        return cls(2100, 1, 2, tzinfo=tz)


def test_a_template_is_told_the_day_on_which_the_dataset_was_begun(
    chats: Path, chat_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(chats, chat_teacher, tmp_path / "out", chat_field="text")
    first = resolve_job(config)
    monkeypatch.setattr(job_identity, "datetime", NextDay)
    again = resolve_job(config)
    assert first.identity == again.identity
    assert first.tokens.rules.today == again.tokens.rules.today
    other = resolve_job(settings(chats, chat_teacher, tmp_path / "other", chat_field="text"))
    assert other.identity.chat_date == "2100-01-02"
    with pytest.raises(ConfigurationMismatchError, match="--chat-date"):
        resolve_job(settings(chats, chat_teacher, tmp_path / "out", chat_field="text", chat_date="2100-01-02"))


def test_settings_without_effect_are_refused(
    job_corpus: Path, chats: Path, chat_teacher: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--chat-date"):
        resolve_job(settings(job_corpus, tiny_teacher, tmp_path / "out", chat_date="2026-01-01"))
    with pytest.raises(TokenizerError, match="--parse-special"):
        resolve_job(settings(job_corpus, tiny_teacher, tmp_path / "out", parse_special=True))
    (chat_teacher / "chat_template.jinja").write_text("{{ messages | random }}")
    with pytest.raises(TokenizerError, match="at random"):
        resolve_job(settings(chats, chat_teacher, tmp_path / "out", chat_field="text"))
    assert not (tmp_path / "out").exists()


def test_a_dataset_keeps_the_rules_it_was_begun_with(chats: Path, chat_teacher: Path, tmp_path: Path) -> None:
    (chat_teacher / "chat_template.jinja").write_text(CHATML)
    config = settings(chats, chat_teacher, tmp_path / "out", chat_field="text")
    current = resolve_job(config)
    assert current.identity.token_rules == TOKEN_RULES
    file = tmp_path / "out/logitcask.json"
    for later in ("token_rules", "chat_split"):
        edit_json(file, lambda stored, later=later: stored["identity"].pop(later))
    begun = resolve_job(config)
    assert begun.identity.to_json() == json.loads(file.read_text())["identity"]
    assert (begun.tokens.rules.version, begun.tokens.chat_split, begun.tokens.fields.rich_messages) == (
        1,
        "never",
        False,
    )
    edit_json(file, lambda stored: stored["identity"].update(token_rules=TOKEN_RULES + 1))
    with pytest.raises(UsageError, match="newer logitcask"):
        resolve_job(config)
