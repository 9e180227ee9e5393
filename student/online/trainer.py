"""Training against a live teacher: the reference for how much stored targets lose.

The windows, their order, the schedules and the denominators are those of a run on stored targets. Only the targets
differ: the teacher's full distributions, or their heads and tails by the shards' scheme, not quantized.
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
from logitcask.student.losses.full_kl import linear_full_kl
from logitcask.student.losses.fused_loss import LinearLoss
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.model.projection import output_projection, scored_hidden_states
from logitcask.student.training.trainer import SoftTargetTrainer
from logitcask.teacher.scoring.protocol import Scorer


class FullDistillationTrainer(SoftTargetTrainer):
    """A `SoftTargetTrainer` whose KL is over the whole vocabulary, from a live teacher.

    Args:
        *arguments: As for `SoftTargetTrainer`; only tokens, kinds and labels of the datasets are used.
        teacher: Gives the distributions of a batch.
        fingerprint: The teacher's; a resumed run must have the same.
        **options: As for `SoftTargetTrainer`.

    Raises:
        UsageError: The loss is not the forward KL.
        VocabularyError: The live teacher predicts another number of ids than the shards' teacher.
    """

    live_teacher: FullTeacher  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, *arguments: Any, teacher: FullTeacher, fingerprint: str = "", **options: Any) -> None:
        self.live_teacher, self._fingerprint = teacher, fingerprint
        super().__init__(*arguments, **options)

    def _check_shards(self, windows: WindowDataset) -> None:
        settings = self.loss_settings
        if replace(settings, temperature=1.0) != LossSettings():
            raise UsageError(
                "full distillation is the forward KL over the whole vocabulary, with alpha and a temperature: it has "
                "no --tail, --divergence or --tempering; to use those, choose --online-targets stored"
            )
        check_size(self.live_teacher, windows)

    @property
    def metric(self) -> str:
        return "full_kl_nats"

    def batch_loss(
        self, student: PreTrainedModel, batch: Batch, kl_weight: Tensor, cross_entropy_weight: Tensor
    ) -> LinearLoss:
        projection = output_projection(student)
        return linear_full_kl(
            scored_hidden_states(student, batch),
            projection.weight,
            projection.bias,
            self.live_teacher.logits_of(batch),
            self.live_teacher.vocab_size,
            labels_T=batch["labels"],
            kl_weight=kl_weight,
            cross_entropy_weight=cross_entropy_weight,
            softcap=projection.softcap,
            temperature=self.loss_settings.temperature,
        )

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "targets": "live, full", "teacher": self._fingerprint}


class LiveTargetsTrainer(SoftTargetTrainer):
    """A `SoftTargetTrainer` whose targets are computed when they are needed, by the scheme of the shards.

    Args:
        *arguments: As for `SoftTargetTrainer`.
        scorer: A scorer with the scheme of the shards.
        fingerprint: Its teacher's; a resumed run must have the same.
        **options: As for `SoftTargetTrainer`.

    Raises:
        UsageError: The data loader has worker processes, where the teacher cannot run.
    """

    def __init__(self, *arguments: Any, scorer: Scorer, fingerprint: str = "", **options: Any) -> None:
        self._scorer, self._fingerprint = scorer, fingerprint
        super().__init__(*arguments, **options)
        if self.args.dataloader_num_workers:
            raise UsageError("a live teacher runs in this process; set dataloader_num_workers to 0")

    def get_train_dataloader(self) -> DataLoader:
        """As for stored targets, except that the teacher computes the targets when a batch is taken."""
        stored = super().get_train_dataloader()
        return DataLoader(
            _Rescored(stored.dataset, self._scorer),
            batch_sampler=stored.batch_sampler,
            collate_fn=stored.collate_fn,
            pin_memory=stored.pin_memory,
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
            "with which the dataset was annotated, or one with the same output size"
        )
