"""A real teacher (SmolLM2-135M from PyPI) on real English: stored targets equal those of a plain forward pass."""

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from repository import ROOT

from logitcask.schemas.dataset.snapshot import complete_snapshot
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.targets import Targets
from logitcask.schemas.maintenance import verify

pytestmark = pytest.mark.slow

DEMO = ROOT / "examples" / "demo.py"


@pytest.fixture(scope="module")
def smollm() -> str:
    spec = spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    demo = module_from_spec(spec)
    spec.loader.exec_module(demo)
    return demo.fetch_teacher("smollm")


@pytest.fixture(scope="module")
def demo(smollm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo on a fifth of its text."""
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, DEMO, "--out", out, "--characters", "34000", "--held-out", "0.4", "--steps", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "KL to the teacher on held-out text" in done.stdout
    return out / "smollm"


@pytest.mark.timeout(900)
def test_the_demo_brings_the_student_closer_to_its_teacher(demo: Path):
    held_out = json.loads((demo / "run/results.json").read_text())["held_out"]
    assert held_out["after"]["kl_nats"] < held_out["before"]["kl_nats"] - 1
    assert held_out["after"]["loss_nats"] < held_out["before"]["loss_nats"] - 1
    assert verify.verify(str(demo / "shards")).faults == ()


@pytest.mark.timeout(900)
def test_stored_targets_equal_a_plain_forward_of_each_part_alone(demo: Path, smollm: str):
    import torch

    from logitcask.teacher.model.loading import load_model

    model = load_model(smollm, "float32", "cpu")
    snapshot = complete_snapshot(str(demo / "shards"))
    entry = snapshot.shards("train")[0]
    with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
        block = reader.read(0, 1)
    windows, targets = block.windows, block.targets
    assert targets is not None
    starts = np.flatnonzero(windows.part_starts())
    divergences: list[float] = []
    for start, stop in zip(starts, [*starts[1:], windows.num_positions], strict=True):
        token = torch.from_numpy(windows.token[start:stop].astype(np.int64))
        with torch.inference_mode():
            log_p = model(token[None]).logits[0].double().log_softmax(-1)
        divergences += check_part(log_p.numpy(), token.numpy(), targets.select_rows(int(start), int(stop)))
    assert len(divergences) == windows.num_positions
    assert np.mean(divergences) < 1e-4
    assert np.max(divergences) < 5e-4


def check_part(log_p: np.ndarray, token: np.ndarray, targets: Targets) -> list[float]:
    """Head ids are exactly those with p ≥ τ, the label's loss is exact; returns each row's KL(exact ‖ stored)."""
    assert np.abs(targets.log_next[:-1] - log_p[np.arange(len(token) - 1), token[1:]]).max() < 1e-3
    assert np.isnan(targets.log_next[-1])
    divergences = []
    for row in range(len(token)):
        entries = slice(targets.head_offsets[row], targets.head_offsets[row + 1])
        ids, stored = targets.head_ids[entries], targets.head_log_probs[entries]
        clearly_in = np.flatnonzero(log_p[row] >= np.log(1.001e-3))
        assert set(clearly_in[np.argsort(-log_p[row][clearly_in])][:127]) <= set(ids)
        assert (log_p[row][ids] >= np.log(0.999e-3)).all()
        exact, tail = log_p[row][ids], np.exp(np.delete(log_p[row], ids)).sum()
        divergences.append((np.exp(exact) * (exact - stored)).sum() + tail * (np.log(tail) - targets.log_tail[row]))
    return divergences


@pytest.mark.timeout(300)
def test_in_a_conversation_exactly_what_the_assistant_says_is_learned(smollm: str):
    from logitcask.teacher.text.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(smollm)
    messages = [
        {"role": "user", "content": "What is a cask?"},
        {"role": "assistant", "content": "A barrel."},
        {"role": "user", "content": "And a logit?"},
        {"role": "assistant", "content": "An unnormalized log-probability."},
    ]
    ids, is_assistant = tokenizer.apply_chat(messages)
    spoken = tokenizer.decode([i for i, mine in zip(ids, is_assistant, strict=True) if mine])
    assert "A barrel.<|im_end|>" in spoken
    assert "An unnormalized log-probability.<|im_end|>" in spoken
    assert "cask" not in spoken
    assert "assistant" not in spoken
