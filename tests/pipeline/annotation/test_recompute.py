"""`verify --recompute`: stored targets against those that the teacher gives again."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from logitcask.pipeline.annotation.recompute import recompute
from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.job import annotate
from logitcask.schemas import cli
from logitcask.schemas.dataset.layout import record_path
from logitcask.schemas.dataset.rules import Rule
from logitcask.schemas.dataset.shard_view import stored_record
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.errors import FingerprintMismatchError, UsageError
from logitcask.schemas.format import quantizer
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.targets import Targets
from logitcask.schemas.format.writer import encode_shard
from logitcask.schemas.maintenance.compact import compact
from logitcask.schemas.maintenance.select_forget import forget_documents, select_rows
from logitcask.schemas.seals import create_sealed
from logitcask.teacher.scoring.sequences import Grouping

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, english: str, tiny_teacher: Path) -> Any:
    """Annotates a few documents with the tiny teacher."""
    corpus = tmp_path_factory.mktemp("corpus")
    lines = [json.dumps({"text": english[start : start + 150]}) for start in range(0, 4000, 400)]
    (corpus / "a.jsonl").write_text("\n".join(lines))

    def annotated(**changes: Any) -> str:
        small: dict[str, Any] = {"window": 64, "batch_tokens": 256, "threads": 1, "dtype": "float32", "device": "cpu"}
        out = tmp_path_factory.mktemp("annotated") / "out"
        config = AnnotateConfig(corpus=(str(corpus),), teacher=str(tiny_teacher), out=str(out), **(small | changes))
        return annotate(config, quiet=True).out

    return annotated


@pytest.fixture(scope="module")
def out(make: Any) -> str:
    return make(held_out=0.0, temperatures=(2.0,))


def test_the_teacher_gives_the_stored_targets_again(out: str, tiny_teacher: Path) -> None:
    result = recompute(out, str(tiny_teacher), 1000)
    total = load_snapshot(out).total()
    assert (result.num_windows, result.num_positions) == (total.num_windows, total.num_positions)
    assert result.head.count > 10 * result.tail.count > 1000
    assert result.is_within_tolerance
    assert result.id_difference_rate < 1e-4
    assert max(one.mean_nats for one in (result.head, result.tail, result.next_token, result.entropy)) < 1e-5
    assert result.head.beyond_step_nats == result.tail.beyond_step_nats == 0


def test_targets_of_wrongly_shared_batches_are_reported(
    english: str, tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that computes a short document otherwise next to a long one, annotated as if it did not."""
    teacher = shutil.copytree(tiny_teacher, tmp_path / "teacher")
    config = json.loads((teacher / "config.json").read_text())
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0**i for i in range(8)]}
    config["rope_parameters"] = {"rope_type": "longrope", "rope_theta": 1e4, **factors}
    config["rope_parameters"]["original_max_position_embeddings"] = config["original_max_position_embeddings"] = 40
    (teacher / "config.json").write_text(json.dumps(config))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": english[:size]}) for size in (900, 60, 60, 900)))
    trusting = "logitcask.teacher.scoring.huggingface.choose_grouping"
    monkeypatch.setattr(trusting, lambda *settings, **more: Grouping())
    small: dict[str, Any] = {"window": 64, "batch_tokens": 256, "threads": 1, "dtype": "float32", "device": "cpu"}
    corpus, out = (str(tmp_path / "a.jsonl"),), str(tmp_path / "out")
    annotate(AnnotateConfig(corpus=corpus, teacher=str(teacher), out=out, held_out=0.0, **small), quiet=True)
    assert not recompute(out, str(teacher), 1000).is_within_tolerance


def test_a_seed_chooses_the_windows(out: str, tiny_teacher: Path) -> None:
    first, again, other = (recompute(out, str(tiny_teacher), 3, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.num_windows == other.num_windows == 3
    assert (first.head, first.num_positions) != (other.head, other.num_positions)


def altered(out: str, directory: Path, change: Any) -> str:
    """A copy of a dataset, undamaged, in which some targets are not the teacher's."""
    copy = str(shutil.copytree(out, directory / "altered"))
    snapshot = load_snapshot(copy)
    records = []
    for entry in snapshot.shards():
        record = stored_record(snapshot, entry)
        with ShardReader(snapshot.shard_url(entry)) as reader:
            block, metadata = reader.read(), reader.metadata
        assert block.targets is not None
        shard = encode_shard(block.windows, change(block.targets), metadata)
        Path(snapshot.shard_url(entry)).write_bytes(shard.data)
        record = dataclasses.replace(
            record, digest=shard.digest, footer_digest=shard.footer_digest, size_bytes=len(shard.data)
        )
        path = Path(copy) / record_path("targets", entry.split, entry.name)
        path.unlink()
        create_sealed(str(path), record.to_json())
        records.append(record)
    draft = Draft.of_records(
        records,
        complete=True,
        identity=snapshot.identity,
        num_documents_in=snapshot.num_documents_in,
        rejected=snapshot.rejected,
    )
    write_draft(copy, draft)
    return copy


def shifted(targets: Targets) -> Targets:
    """Moves a twentieth of every head's mass to its tail."""
    log_probs = targets.head_log_probs + np.float32(np.log(0.95))
    tail = 1 - quantizer.sum_rows(np.exp(log_probs), targets.head_offsets)
    log_tail = np.where(targets.has_target(), np.log(tail), np.nan).astype(np.float32)
    return dataclasses.replace(targets, head_log_probs=log_probs, log_tail=log_tail)


def other_label(targets: Targets) -> Targets:
    """Lowers one label's log-probability by a tenth of a nat."""
    log_next = targets.log_next.copy()
    log_next[np.flatnonzero(targets.has_label())[0]] -= 0.1
    return dataclasses.replace(targets, log_next=log_next)


def other_ids(targets: Targets) -> Targets:
    """Increases the last id of every head by one."""
    ids = targets.head_ids.copy()
    last = targets.head_offsets[1:][np.diff(targets.head_offsets) > 0] - 1
    ids[last] = np.minimum(ids[last] + 1, 999)
    return dataclasses.replace(targets, head_ids=ids)


@pytest.mark.parametrize("change", [shifted, other_label, other_ids])
def test_targets_that_are_not_the_teachers_are_reported(
    out: str, tiny_teacher: Path, tmp_path: Path, change: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = altered(out, tmp_path, change)
    words = ["verify", copy, "--recompute", "1000", "--teacher", str(tiny_teacher)]
    assert cli.main(["verify", copy]) == 0
    assert cli.main(words) == 1
    assert "BEYOND TOLERANCE" in capsys.readouterr().out
    assert cli.main([*words, "--json"]) == 1
    report = capsys.readouterr().out
    assert json.loads(report[report.index("{") :])["recomputed"]["is_within_tolerance"] is False


def test_other_weights_are_refused_by_their_fingerprint(out: str, tiny_teacher: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_teacher, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] + 0.001
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FingerprintMismatchError, match="name the same weights"):
        recompute(out, str(other), 1)


def test_a_snapshot_with_rules_is_recomputed(out: str, tiny_teacher: Path, tmp_path: Path) -> None:
    copy = str(shutil.copytree(out, tmp_path / "copy"))
    select_rows(copy, Rule(min_entropy=1.0))
    forget_documents(copy, ["a.jsonl#2"])
    assert recompute(copy, str(tiny_teacher), 1000).is_within_tolerance
    compact(copy)
    after = recompute(copy, str(tiny_teacher), 1000)
    assert after.is_within_tolerance
    assert after.num_positions < load_snapshot(out).total().num_positions


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"head": "random-sampling", "draws": 12}, {"head": "threshold-sampling"}])
def test_draws_are_equal_unless_their_window_was_rewritten(
    make: Any, tiny_teacher: Path, changes: dict[str, Any]
) -> None:
    out = make(**changes, replicas=2)
    result = recompute(out, str(tiny_teacher), 1000)
    assert result.is_within_tolerance
    forget_documents(out, ["a.jsonl#2"])
    compact(out)
    assert recompute(out, str(tiny_teacher), 1000).is_within_tolerance


@pytest.mark.slow
def test_bfloat16_in_other_batches_stays_within_its_tolerance(make: Any, tiny_teacher: Path) -> None:
    torch.set_num_threads(1)
    result = recompute(make(dtype="bfloat16"), str(tiny_teacher), 1000)
    assert result.dtype == "bfloat16"
    assert result.is_within_tolerance


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_dtype_has_a_tolerance_or_is_refused(out: str, tiny_teacher: Path, monkeypatch: Any, dtype: str) -> None:
    """Datasets that other software imports may state any dtype."""
    snapshot = load_snapshot(out)
    assert snapshot.identity.teacher is not None
    teacher = dataclasses.replace(snapshot.identity.teacher, dtype=dtype)
    stated = dataclasses.replace(snapshot, identity=dataclasses.replace(snapshot.identity, teacher=teacher))
    monkeypatch.setattr("logitcask.pipeline.annotation.recompute.load_snapshot", lambda *_: stated)
    if dtype == "float16":
        result = recompute(out, str(tiny_teacher), 4)
        assert (result.dtype, result.mean_tolerance_nats) == ("float16", 0.0125)
        assert result.is_within_tolerance
    else:
        with pytest.raises(UsageError, match="annotated in 'float64'; targets can be recomputed in float32, bfloat16"):
            recompute(out, str(tiny_teacher), 4)


def test_bad_usage_is_refused(out: str, tiny_teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="at least one window"):
        recompute(out, str(tiny_teacher), -1)
    assert cli.main(["verify", out, "--recompute", "2"]) == 2
    assert "--recompute needs --teacher" in capsys.readouterr().err
