"""Targets of a whole job: each position is compared with a plain forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_job import blocks

from logitcask.pipeline.job import JobResult
from logitcask.schemas.format.targets import Targets, Windows

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")


def test_every_position_equals_a_plain_forward_of_its_part_alone(finished_job: JobResult, tiny_teacher: Path) -> None:
    """In float32. Tolerances: half a step of each quantizer, and 2 % for the renormalization of a target."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_teacher, dtype=torch.float32)
    num_positions = 0
    for block in blocks(finished_job.out):
        windows, targets = block.windows, block.targets
        assert targets is not None
        for part in range(len(windows.parts)):
            rows = np.flatnonzero(windows.part == part)
            with torch.inference_mode():
                logits_TV = model(torch.from_numpy(windows.token[rows].astype(np.int64))[None]).logits[0]
            log_probs_TV = logits_TV.double().log_softmax(-1).numpy()
            check_rows(windows, targets, rows, log_probs_TV)
            num_positions += len(rows)
    assert num_positions == finished_job.snapshot.total().num_positions > 2000


def check_rows(windows: Windows, targets: Targets, rows: np.ndarray, log_probs_TV: np.ndarray) -> None:
    for index, row in enumerate(rows):
        log_probs_V, probs_V = log_probs_TV[index], np.exp(log_probs_TV[index])
        head = slice(targets.head_offsets[row], targets.head_offsets[row + 1])
        ids = targets.head_ids[head]
        largest = np.sort(np.argsort(-log_probs_V, kind="stable")[: len(ids)])
        assert set(ids) ^ set(largest) <= set(np.flatnonzero(np.abs(probs_V / 1e-3 - 1) < 1e-3))
        assert len(ids) == pytest.approx((probs_V >= 1e-3).sum(), abs=1) or len(ids) == 128
        # One shift in each row for head and tail: decoding renormalizes them together.
        shift = targets.log_tail[row] - np.log1p(-probs_V[ids].sum())
        assert abs(shift) < 0.02
        u = (np.sqrt(1 - 4 * log_probs_V[ids]) - 1) / 2
        half_step = np.where(u < 255 / 64, (1 + 2 * u) / 128, np.inf)
        assert (np.abs(targets.head_log_probs[head] - log_probs_V[ids] - shift) < half_step + 1e-3).all()
        entropy = -(probs_V * log_probs_V).sum()
        assert targets.entropy is not None
        assert targets.entropy[row] == pytest.approx(entropy, abs=1 / 4096 + 1e-4)
        if index + 1 < len(rows):
            expected = log_probs_V[windows.token[rows[index + 1]]]
            assert targets.log_next[row] == pytest.approx(expected, abs=1 / 4096 + 2e-4)
        else:
            assert np.isnan(targets.log_next[row])
