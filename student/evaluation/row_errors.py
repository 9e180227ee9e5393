"""How far a student is from the teacher at each row of a window: the values by which a report shades its text.

The forward pass and the divergence are those of `student.evaluation.evaluate`, per row instead of summed. T scored rows
of one window, N head entries in all of them.
"""

from pathlib import Path

import numpy as np
import torch

from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.report.windows import Student, StudentRows
from logitcask.student.data.collator import collate, targets_of
from logitcask.student.data.dataset import WindowSample
from logitcask.student.losses.fused_loss import CHUNK_ROWS
from logitcask.student.losses.targets import NO_LABEL
from logitcask.student.losses.truncated_kl import truncated_kl
from logitcask.student.model.load import load_student_for
from logitcask.student.model.projection import output_projection, scored_hidden_states


def student_errors(directory: Path, dataset: ShardMetadata) -> Student:
    """Loads a student and returns a function that scores windows with it.

    Args:
        directory: Directory of a finished run, or of a student.
        dataset: Metadata of the shards whose windows will be scored.

    Raises:
        UsageError: There is no student, or it cannot be loaded.
        FingerprintMismatchError, VocabularyError: Student and shards have different vocabularies.
    """
    model = load_student_for(directory, dataset).eval()
    projection = output_projection(model)

    @torch.no_grad()
    def score(windows: Windows, stored: Targets) -> StudentRows:
        batch = collate([WindowSample(index=0, windows=windows, targets=stored)])
        hidden_TD, rows_T, labels_T = scored_hidden_states(model, batch), batch["scored_rows"], batch["labels"]
        all_targets = targets_of(batch, dataset.vocab_size)
        kl, loss, probabilities = [], [], []
        for start in range(0, len(rows_T), CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, len(rows_T))
            targets = all_targets.select(start, stop)
            logits_TV = projection.logits(hidden_TD[start:stop])[:, : dataset.vocab_size].float()
            kl.append(truncated_kl(logits_TV, targets).where(targets.head_offsets.diff() > 0, torch.nan))
            log_probs_TV = logits_TV.log_softmax(dim=-1)
            at_label_T = log_probs_TV.gather(1, labels_T[start:stop, None].clamp(min=0))[:, 0]
            loss.append((-at_label_T).where(labels_T[start:stop] != NO_LABEL, torch.nan))
            probabilities.append(log_probs_TV[targets.head_rows(), targets.head_ids].exp())
        return StudentRows(
            kl_nats=_by_row(kl, rows_T, windows.num_positions),
            loss_nats=_by_row(loss, rows_T, windows.num_positions),
            probabilities=torch.cat(probabilities).numpy() if probabilities else np.zeros(0, np.float32),
        )

    return score


def _by_row(chunks: list[torch.Tensor], rows_T: torch.Tensor, num_rows: int) -> np.ndarray:
    """The values of the scored rows, and nan in the other rows, [num_rows]."""
    values = np.full(num_rows, np.nan, np.float32)
    if chunks:
        values[rows_T.numpy()] = torch.cat(chunks).float().numpy()
    return values
