"""How far a student is from the teacher at each row of a window: what a report shades its text by.

The same forward pass and the same divergence as in `student.evaluation.evaluate`, row by row instead of summed. T rows
of one window, N head entries of all of them.
"""

from pathlib import Path

import numpy as np
import torch

from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.report.windows import Student, StudentRows
from logitcask.student.data.collator import collate, targets_of
from logitcask.student.data.dataset import WindowSample
from logitcask.student.losses.linear_truncated_kl import CHUNK_ROWS
from logitcask.student.losses.targets import NO_LABEL
from logitcask.student.losses.truncated_kl import truncated_kl
from logitcask.student.model.load import find_student, load_student
from logitcask.student.model.projection import check_projection, hidden_states, output_projection
from logitcask.student.model.student_card import StudentCard, check_fits, check_vocabulary_size


def student_errors(directory: Path, dataset: ShardMetadata) -> Student:
    """Loads a student and returns what scores windows with it.

    Args:
        directory: Of a finished run, or of a student.
        dataset: Of the shards whose windows will be scored.

    Raises:
        UsageError: There is no student, or it cannot be loaded.
        FingerprintMismatchError, VocabularyError: Student and shards do not belong together.
    """
    identity = StudentCard.read(find_student(directory))
    check_fits(identity.tokenizer, dataset)
    model = load_student(find_student(directory)).eval()
    projection = output_projection(model)
    check_vocabulary_size(projection.weight.shape[0], dataset)
    check_projection(model)

    @torch.no_grad()
    def score(windows: Windows, targets: Targets) -> StudentRows:
        batch = collate([WindowSample(index=0, windows=windows, targets=targets)])
        hidden_BSD = hidden_states(model, batch["input_ids"], batch["position_ids"])
        rows_T = batch["scored_rows"]
        hidden_TD, aims, labels_T = (
            hidden_BSD.flatten(0, 1)[rows_T],
            targets_of(batch, dataset.vocab_size),
            batch["labels"],
        )
        kl, loss, probabilities = [], [], []
        for start in range(0, len(rows_T), CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, len(rows_T))
            aim = aims.select(start, stop)
            logits_TV = projection.logits(hidden_TD[start:stop])[:, : dataset.vocab_size].float()
            kl.append(truncated_kl(logits_TV, aim).where(aim.head_offsets.diff() > 0, torch.nan))
            log_probs_TV = logits_TV.log_softmax(dim=-1)
            at_label_T = log_probs_TV.gather(1, labels_T[start:stop, None].clamp(min=0))[:, 0]
            loss.append((-at_label_T).where(labels_T[start:stop] != NO_LABEL, torch.nan))
            probabilities.append(log_probs_TV[aim.head_rows(), aim.head_ids].exp())
        return StudentRows(
            kl_nats=_spread(kl, rows_T, windows.num_positions),
            loss_nats=_spread(loss, rows_T, windows.num_positions),
            probabilities=torch.cat(probabilities).numpy() if probabilities else np.zeros(0, np.float32),
        )

    return score


def _spread(chunks: list[torch.Tensor], rows_T: torch.Tensor, num_rows: int) -> np.ndarray:
    """Values of the scored rows at their places among all rows; nan elsewhere."""
    values = np.full(num_rows, np.nan, np.float32)
    if chunks:
        values[rows_T.numpy()] = torch.cat(chunks).float().numpy()
    return values
