"""Random problems for the dense definitions."""

from dataclasses import replace

import pytest
import torch
from dense_losses import DRAWS, MASKED, TAILS, VOCAB, WIDTHS, Problem

from logitcask.student.losses.targets import NO_LABEL, RaggedTargets


@pytest.fixture(scope="module")
def problem(truncate) -> Problem:
    """Heads of all widths, labels in and out of the head and missing, draws with repeats; exact tails at ½ and 2."""
    generator = torch.Generator().manual_seed(3)
    teacher_z = (3 * torch.randn(len(WIDTHS), VOCAB, generator=generator, dtype=torch.float64)).log_softmax(-1)
    case = truncate(teacher_z.exp(), WIDTHS, MASKED)
    outside = [(~case.is_head[row]).nonzero().squeeze(-1) for row in range(len(WIDTHS))]
    draws = [
        [] if MASKED[row] or not len(ids) else ids[torch.randint(len(ids), (6,), generator=generator)].tolist()
        for row, ids in enumerate(outside)
    ]
    draws[0][1] = draws[0][0]
    labels = torch.randint(VOCAB, (len(WIDTHS),), generator=generator)
    labels[2] = case.is_head[2].nonzero()[1, 0]
    labels[5] = NO_LABEL
    masked = torch.tensor(MASKED)
    rows = torch.arange(len(WIDTHS))
    tails = {
        temperature: truncate((teacher_z / temperature).softmax(-1), WIDTHS, MASKED).targets.log_tail
        for temperature in (0.5, 2.0)
    }
    targets = replace(
        case.targets,
        log_next=teacher_z[rows, labels.clamp(min=0)].where((labels != NO_LABEL) & ~masked, float("nan")),
        sample_ids=torch.tensor([id_ for row in draws for id_ in sorted(row)]),
        sample_offsets=torch.tensor([0] + [len(row) for row in draws]).cumsum(0),
        tempered_log_tails=tails,
    )
    return Problem(teacher_z=teacher_z, targets=targets, labels=labels, draws=draws)


@pytest.fixture(scope="module")
def extreme() -> Problem:
    """A head of two ids and each of the tails, once for a student of no and once for one of much confidence."""
    tails = torch.tensor(TAILS + TAILS, dtype=torch.float64)
    rows = len(tails)
    teacher = (tails / (VOCAB - 2)).unsqueeze(-1).repeat(1, VOCAB)
    teacher[:, 3], teacher[:, 5] = 0.75 * (1 - tails), 0.25 * (1 - tails)
    tempered = (teacher.log() / 2).softmax(-1)
    cooled = (teacher.log() * 2).softmax(-1)
    return Problem(
        teacher_z=teacher.log(),
        targets=RaggedTargets(
            head_ids=torch.tensor([3, 5]).repeat(rows),
            head_log_probs=teacher[:, [3, 5]].log().flatten(),
            head_offsets=2 * torch.arange(rows + 1),
            log_tail=tails.log(),
            vocab_size=VOCAB,
            log_next=teacher[:, 200].log(),
            sample_ids=torch.tensor(DRAWS).repeat(rows),
            sample_offsets=3 * torch.arange(rows + 1),
            tempered_log_tails={
                t: torch.cat([mass[:, :3], mass[:, 4:5], mass[:, 6:]], -1).sum(-1).log()
                for t, mass in ((2.0, tempered), (0.5, cooled))
            },
        ),
        labels=torch.tensor([200, 200, 5, NO_LABEL]).repeat(2),
        draws=[DRAWS] * rows,
    )
