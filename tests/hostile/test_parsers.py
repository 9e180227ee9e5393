"""Every field × every kind of bad value, for every kind of JSON file: a parser returns or raises a named error."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hostile_datasets import BAD_TEXTS, changed_values, forged, json_files, shrunk, write_dataset, write_journal

from logitcask.pipeline.units.leases import Lease
from logitcask.schemas.checked_json import convert, parse_object
from logitcask.schemas.dataset.layout import Configuration, read_configuration
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.dataset.split_summary import SplitSummary, sum_summaries
from logitcask.schemas.dataset.token_unit_record import TokenUnitRecord
from logitcask.schemas.dataset.vocabulary import read_vocabulary
from logitcask.schemas.errors import LogitcaskError
from logitcask.schemas.format.footer import METADATA_KEY, PARTS_KEY, VERSION_KEY, WINDOWS_KEY, parse_footer
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.maintenance import compact
from logitcask.student.model.student_card import StudentCard

FOOTER_KEYS = (METADATA_KEY, PARTS_KEY, WINDOWS_KEY)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("hostile") / "ds"
    write_dataset(out)
    write_journal(out)
    return out


def use_record(text: bytes) -> None:
    record = UnitRecord.from_json(parse_object(text))
    summary = sum_summaries([SplitSummary.of_record(record)] * 2)
    json.dumps([summary.statistics.summary(), record.to_json()])


def use_snapshot(out: Path, text: bytes) -> None:
    (out / "snapshots/000001.json").write_bytes(text)
    snapshot = load_snapshot(str(out))
    json.dumps([snapshot.total().statistics.summary(), snapshot.identity.to_json(), snapshot.num_rejected])
    snapshot.identity.target_fingerprint()


def use_configuration(out: Path, text: bytes) -> None:
    (out / "logitcask.json").write_bytes(text)
    found = read_configuration(str(out))
    assert isinstance(found, Configuration)
    json.dumps([found.identity.to_json(), found.environment])


def use_vocabulary(out: Path, text: bytes) -> None:
    (out / "tokenizer/pieces.json").write_bytes(text)
    read_vocabulary(str(out)).text(range(-1, 400))


def use_journal(out: Path, text: bytes) -> None:
    (out / "compaction.json").write_bytes(text)
    compact._published_journal(str(out))


def use_card(directory: Path, text: bytes) -> None:
    (directory / "logitcask.json").write_bytes(text)
    StudentCard.read(directory)


def use_lease(text: bytes) -> None:
    convert(parse_object(text), Lease).describe()


def assert_named(use: Any, text: bytes, where: str) -> bool:
    """Whether the text was refused."""
    try:
        use(text)
    except LogitcaskError:
        return True
    except Exception as error:
        raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
    return False


@pytest.mark.parametrize(
    ("name", "use", "minimum"),
    [
        ("targets/train/a0.json", use_record, 500),
        ("snapshots/000001.json", use_snapshot, 1000),
        ("logitcask.json", use_configuration, 300),
        ("tokens/units/000000-abc.json", lambda text: TokenUnitRecord.from_json(parse_object(text)), 150),
        ("tokenizer/pieces.json", use_vocabulary, 60),
        ("compaction.json", use_journal, 100),
        ("attempts/000000-abc~00000000.json", use_lease, 40),
    ],
)
def test_a_bad_value_in_any_field_has_a_named_error(out, name, use, minimum):
    original = (out / name).read_bytes()
    if use in (use_snapshot, use_configuration, use_vocabulary, use_journal):
        use = partial(use, out)
    try:
        use(original)
        value = shrunk(json.loads(original))
        texts = [(what, change(original)) for what, change in BAD_TEXTS.items() if what != "many values"]
        texts += [(what, forged(value)) for what, value in changed_values(value)]
        refused = sum(assert_named(use, text, f"{name}: {what}") for what, text in texts)
    finally:
        (out / name).write_bytes(original)
    assert refused >= minimum


def test_a_bad_value_in_a_shards_footer_has_a_named_error(out):
    with ShardReader(str(out / "targets/train/a0.parquet")) as reader:
        pairs = dict(reader.parquet_metadata.metadata)
    refused = 0
    for key in FOOTER_KEYS:
        for what, value in changed_values(json.loads(pairs[key])):
            bad = {**pairs, key: json.dumps(value).encode()}
            refused += assert_named(lambda _, bad=bad: parse_footer(bad), b"", f"{key!r}: {what}")
        for what, change in BAD_TEXTS.items():
            bad = {**pairs, key: change(pairs[key])}
            refused += assert_named(lambda _, bad=bad: parse_footer(bad), b"", f"{key!r}: {what}")
        refused += assert_named(lambda _, key=key: parse_footer({VERSION_KEY: b"1", key: b"{}"}), b"", "alone")
    assert refused > 300


def test_a_bad_value_in_a_students_card_has_a_named_error(tmp_path):
    card = {
        "student_version": 1,
        "tokenizer": {
            "name": "t",
            "fingerprint": "f",
            "vocabulary_fingerprint": "v",
            "vocab_size": 9,
            "bos_id": 1,
            "eos_id": 2,
        },
        "initialisation": {"kind": "scratch"},
        "training": None,
        "licences": {"teacher": "MIT"},
    }
    use = partial(use_card, tmp_path)
    use(json.dumps(card).encode())
    assert sum(assert_named(use, json.dumps(value).encode(), what) for what, value in changed_values(card)) > 100


def test_the_generator_covers_every_kind_of_file(out):
    assert all(file.exists() for file in json_files(out))
