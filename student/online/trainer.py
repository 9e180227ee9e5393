"""Training against a live teacher: the reference for what cached targets lose.

The windows, their order, the schedules and the denominators are those of a cached run; only the targets differ: the
teacher's whole distributions, or the heads and tails that the shards' scheme keeps of them, unquantised.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel

from logitcask.schemas.errors import UsageError, VocabularyError
from logitcask.student.data.collator import Batch
from logitcask.student.data.dataset import WindowSample
from logitcask.student.data.mixture import WindowDataset
from logitcask.student.evaluation.evaluate import FullTeacher
from logitcask.student.losses.full_kl import FullObjective, linear_full_kl
from logitcask.student.losses.linear_truncated_kl import LinearLoss
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.model.projection import hidden_states, output_projection
from logitcask.student.training.trainer import SoftTargetTrainer
from logitcask.teacher.scoring.protocol import Scorer


class FullDistillationTrainer(SoftTargetTrainer):
    """A `SoftTargetTrainer` whose KL is over the whole vocabulary, from a teacher that runs beside the student.

    Args:
        *arguments: As for `SoftTargetTrainer`; of the datasets only tokens, kinds and labels are used.
        teacher: Gives the distributions of a batch.
        fingerprint: Of the teacher; a resumed run must have the same.
        **options: As for `SoftTargetTrainer`.

    Raises:
        UsageError: The loss is another than the forward KL.
        VocabularyError: The teacher predicts another number of ids than the shards' teacher.
    """

    live_teacher: FullTeacher  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, *arguments: Any, teacher: FullTeacher, fingerprint: str = "", **options: Any) -> None:
        self.live_teacher, self._fingerprint = teacher, fingerprint
        super().__init__(*arguments, **options)

    def _check_shards(self, windows: WindowDataset) -> None:
        settings = self.loss_settings
        if replace(settings, temperature=1.0) != LossSettings():
            raise UsageError(
                "full distillation is the forward KL over the whole vocabulary: it takes alpha and a temperature, but "
                "no --tail, --divergence or --tempering; for those use --online-targets stored"
            )
        check_size(self.live_teacher, windows)

    @property
    def metric(self) -> str:
        return "full_kl_nats"

    def batch_loss(
        self, student: PreTrainedModel, batch: Batch, kl_weight: Tensor, cross_entropy_weight: Tensor
    ) -> LinearLoss:
        objective = FullObjective(
            teacher_logits=self.live_teacher.logits_of(batch),
            vocab_size=self.live_teacher.vocab_size,
            labels=batch["labels"],
            kl_weight=kl_weight,
            cross_entropy_weight=cross_entropy_weight,
            temperature=self.loss_settings.temperature,
        )
        hidden_BSD = hidden_states(student, batch["input_ids"], batch["position_ids"])
        return linear_full_kl(hidden_BSD.flatten(0, 1)[batch["scored_rows"]], output_projection(student), objective)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "targets": "live, full", "teacher": self._fingerprint}


class LiveTargetsTrainer(SoftTargetTrainer):
    """A `SoftTargetTrainer` whose targets are made as they are needed, by the scheme of the shards.

    Args:
        *arguments: As for `SoftTargetTrainer`.
        scorer: Of the scheme that the shards were made with.
        fingerprint: Of its teacher; a resumed run must have the same.
        **options: As for `SoftTargetTrainer`.
    """

    def __init__(self, *arguments: Any, scorer: Scorer, fingerprint: str = "", **options: Any) -> None:
        self._scorer, self._fingerprint = scorer, fingerprint
        super().__init__(*arguments, **options)
        if self.args.dataloader_num_workers:
            raise UsageError("a live teacher runs in this process; set dataloader_num_workers to 0")

    def get_train_dataloader(self) -> DataLoader:
        """As for cached targets, with targets made by the teacher when a batch is taken."""
        cached = super().get_train_dataloader()
        return DataLoader(
            _Rescored(cached.dataset, self._scorer),
            batch_sampler=cached.batch_sampler,
            collate_fn=cached.collate_fn,
            pin_memory=cached.pin_memory,
        )

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "targets": "live, by the shards' scheme", "teacher": self._fingerprint}


class _Rescored(Dataset[WindowSample]):
    """Windows with targets from a live teacher."""

    def __init__(self, windows: Dataset[WindowSample], scorer: Scorer) -> None:
        self._windows, self._scorer = windows, scorer

    def __len__(self) -> int:
        return len(self._windows)  # type: ignore[arg-type]

    def __getitem__(self, index: Any) -> WindowSample:
        sample = self._windows[index]
        return replace(sample, targets=self._scorer.score(sample.windows))


def check_size(teacher: FullTeacher, windows: WindowDataset) -> None:
    """Refuses a teacher with another number of ids than the shards' teacher.

    Raises:
        VocabularyError: Names both.
    """
    if teacher.vocab_size != windows.vocab_size:
        raise VocabularyError(
            f"the live teacher predicts {teacher.vocab_size} ids, the dataset's {windows.vocab_size}; use the teacher "
            "that the dataset was annotated with, or one of its size"
        )
