"""The table of settings: fingerprints, comparisons and stored JSON all follow from it."""

import dataclasses

import pytest

from logitcask.schemas.checked_json import InvalidValueError
from logitcask.schemas.dataset.identity import AppendedCorpus, CorpusInfo, Identity, differences, joined_licenses
from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.metadata import TeacherInfo, TokenizerInfo
from logitcask.schemas.format.scheme import ThresholdScheme

TOKENIZER = TokenizerInfo(
    name="words",
    fingerprint="a0",
    vocabulary_fingerprint="a1",
    vocab_size=300,
    bos_id=2,
    eos_id=None,
    chat_template="{{ messages }}",
)
TEACHER = TeacherInfo(
    name="hub/teacher",
    fingerprint="b0",
    vocab_size=304,
    dtype="bfloat16",
    architecture="Gemma2ForCausalLM",
    num_parameters=10_000,
    licence="apache-2.0",
    final_logit_softcap=30.0,
)
PLAIN = Identity(
    corpus=CorpusInfo(num_files=3, size_bytes=300, fingerprint="c0"),
    corpus_licence="PSF-2.0",
    text_field="text",
    document_bytes=1 << 20,
    tokenizer=TOKENIZER,
    teacher=TEACHER,
    scheme=ThresholdScheme(),
    window_tokens=64,
    overlap_tokens=8,
    held_out=0.1,
    shard_tokens=4096,
    entropy=True,
    packing_version=1,
    algorithm_version=1,
    format_version=1,
)
FULL = dataclasses.replace(PLAIN, temperatures=(0.5, 2.0), num_ids=300, layout="compact")


@pytest.mark.parametrize(
    ("identity", "tokens", "targets"),
    [
        (PLAIN, "8ce6e5b76e64606845385745679118ad", "6216e43b2da37385eb6cb74d4afeccda"),
        (FULL, "8ce6e5b76e64606845385745679118ad", "72bdfbff732387c435b8ef309ecb47b2"),
    ],
)
def test_fingerprints_are_those_of_the_first_release(identity, tokens, targets):
    """Units of datasets that were begun earlier are named after them."""
    assert (identity.token_fingerprint(), identity.target_fingerprint()) == (tokens, targets)


def test_the_stored_json_omits_later_settings_at_their_default():
    always = {
        "corpus", "corpus_licence", "text_field", "chat_field", "document_bytes", "tokenizer", "teacher", "scheme",
        "window_tokens", "overlap_tokens", "held_out", "shard_tokens", "entropy", "packing_version",
        "algorithm_version", "format_version",
    }  # fmt: skip
    assert PLAIN.to_json().keys() == always
    assert PLAIN.to_json()["chat_field"] is None
    assert FULL.to_json().keys() == always | {"temperatures", "num_ids", "layout"}
    assert FULL.to_json()["temperatures"] == [0.5, 2.0]


@pytest.mark.parametrize(
    "identity",
    [
        Identity(),
        PLAIN,
        FULL,
        dataclasses.replace(
            FULL,
            appended=(AppendedCorpus(num_files=1, size_bytes=2, fingerprint="c1", corpus_licence=None),),
            merged=({"dataset": "elsewhere", "corpora": []},),
        ),
    ],
)
def test_an_identity_comes_back_from_json_unchanged(identity):
    assert Identity.from_json(identity.to_json()) == identity


def test_settings_of_a_later_release_are_kept_and_written_back():
    stored = PLAIN.to_json()
    later = {**stored, "beauty": 1, "teacher": {**stored["teacher"], "age": 2}}
    identity = Identity.from_json(later)
    assert identity.teacher == TEACHER
    assert identity.to_json() == later
    assert identity.target_fingerprint() != PLAIN.target_fingerprint()
    assert differences(identity, PLAIN, "dataset") == [
        "beauty: 1 in the output, None now",
        "teacher.age: 2 in the output, None now",
    ]


def test_a_scheme_of_a_later_release_is_kept_but_not_used():
    stored = {**PLAIN.to_json(), "scheme": {"kind": "oracle", "luck": 7}}
    identity = Identity.from_json(stored)
    assert identity.scheme is None
    assert identity.to_json() == stored


@pytest.mark.parametrize("value", [[], 1, {"teacher": []}, {"tokenizer": {"name": "x"}}])
def test_what_is_not_an_identity_is_refused(value):
    with pytest.raises(InvalidValueError):
        Identity.from_json(value)


@pytest.mark.parametrize(
    ("changes", "scopes"),
    [
        ({"corpus": None}, {"job"}),
        ({"corpus_licence": "MIT"}, {"job"}),
        ({"merged": ({"dataset": "elsewhere"},)}, {"job"}),
        ({"teacher": dataclasses.replace(TEACHER, name="other", licence=None)}, set()),
        ({"tokenizer": dataclasses.replace(TOKENIZER, name="other")}, set()),
        ({"text_field": "body"}, {"job", "dataset"}),
        ({"held_out": 0.2}, {"job", "dataset"}),
        ({"layout": "compact"}, {"job", "dataset"}),
        ({"teacher": dataclasses.replace(TEACHER, fingerprint="other")}, {"job", "dataset", "targets"}),
        ({"scheme": ThresholdScheme(tau=0.5)}, {"job", "dataset", "targets"}),
        ({"temperatures": (2.0,)}, {"job", "dataset", "targets"}),
        ({"window_tokens": 128}, {"job", "dataset", "targets"}),
        ({"entropy": False}, {"job", "dataset", "targets"}),
        ({"algorithm_version": 2}, {"job", "dataset", "targets"}),
    ],
)
def test_each_setting_must_agree_in_its_scope_and_narrower_ones(changes, scopes):
    other = dataclasses.replace(PLAIN, **changes)
    assert {scope for scope in ("job", "dataset", "targets") if differences(PLAIN, other, scope)} == scopes


def test_a_difference_names_the_key_both_values_and_places():
    other = dataclasses.replace(PLAIN, teacher=dataclasses.replace(TEACHER, fingerprint="b1"), num_ids=300)
    assert differences(PLAIN, other, "targets", where=("in A", "in B")) == [
        "num_ids: None in A, 300 in B",
        "teacher.fingerprint: 'b0' in A, 'b1' in B",
    ]


def test_shard_metadata_and_identity_say_the_same():
    metadata = FULL.shard_metadata("targets", "held-out")
    assert (metadata.split, metadata.layout, metadata.has_entropy) == ("held-out", "compact", True)
    assert Identity.of_shards(metadata).shard_metadata("targets", "held-out") == metadata
    tokens = FULL.shard_metadata("tokens", "train")
    assert (tokens.teacher, tokens.scheme, tokens.layout) == (None, None, "plain")


def test_an_identity_without_a_teacher_describes_no_target_shard():
    unknown = dataclasses.replace(PLAIN, teacher=None)
    assert unknown.shard_metadata("tokens", "train").tokenizer == TOKENIZER
    with pytest.raises(UsageError, match="without teacher"):
        unknown.shard_metadata("targets", "train")


def test_licenses_are_joined_once_each():
    assert joined_licenses([None, None]) is None
    assert joined_licenses(["MIT", None, "MIT"]) == "MIT AND not stated"
