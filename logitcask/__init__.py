"""Offline logit distillation: annotate a corpus with a teacher once, train any number of students from the shards.

The public names. Each is imported on first use, so that `import logitcask` is cheap; everything else is internal.

Annotation
    annotate             Annotates a corpus: `annotate(AnnotateConfig(corpus=..., teacher=..., out=...))`.
    AnnotateConfig       Settings of an annotation job, the same as the command's options.
    JobResult            What a job did, with the snapshot that it published.
    verify               Checks a dataset and reads every byte of it.

Datasets
    Dataset              Reads a dataset: its snapshot, and the windows and targets of its shards.
    DatasetWriter        Writes a dataset from windows and targets.
    Identity             The settings of a dataset: tokenizer, teacher, scheme, window size and the rest.
    Snapshot             A numbered, immutable view of a dataset, with totals and statistics.
    Windows, Part, Kind  Tokens of packed documents.
    Targets, TailSample  The teacher's distributions: head, tail, sampled ids.
    TokenizerInfo        Which tokenizer made the ids.
    TeacherInfo          Which model gave the distributions.
    LogitcaskError       The base class of all errors that an input or a setting causes.

Training
    SoftTargetDataset    The windows of one split as a `torch` dataset.
    MixedDataset         Several datasets, mixed by weight.
    collate              Windows into one batch of tensors.
    targets_of           The decoded targets of a batch, on the batch's device.
    SoftTargetTrainer    A `transformers.Trainer` on stored targets.
    LossSettings         Which loss: tail treatment, divergence, temperature.
    AlphaSchedule        The weight of the KL over a run.
    evaluate             KL, loss, agreement and calibration of a student on held-out windows.

Losses
    RaggedTargets        Decoded targets of T positions on a device.
    truncated_kl         The KL over head entries and the "other" bucket, from logits.
    linear_truncated_kl  The same from hidden states and the output matrix, without the logits.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logitcask.pipeline.config import AnnotateConfig as AnnotateConfig
    from logitcask.pipeline.job import JobResult as JobResult
    from logitcask.pipeline.job import annotate as annotate
    from logitcask.schemas.dataset.dataset import Dataset as Dataset
    from logitcask.schemas.dataset.dataset_writer import DatasetWriter as DatasetWriter
    from logitcask.schemas.dataset.identity import Identity as Identity
    from logitcask.schemas.dataset.snapshot import Snapshot as Snapshot
    from logitcask.schemas.errors import LogitcaskError as LogitcaskError
    from logitcask.schemas.format.metadata import TeacherInfo as TeacherInfo
    from logitcask.schemas.format.metadata import TokenizerInfo as TokenizerInfo
    from logitcask.schemas.format.targets import Kind as Kind
    from logitcask.schemas.format.targets import Part as Part
    from logitcask.schemas.format.targets import TailSample as TailSample
    from logitcask.schemas.format.targets import Targets as Targets
    from logitcask.schemas.format.targets import Windows as Windows
    from logitcask.schemas.maintenance.verify import verify as verify
    from logitcask.student.alpha_schedule import AlphaSchedule as AlphaSchedule
    from logitcask.student.data.collator import collate as collate
    from logitcask.student.data.collator import targets_of as targets_of
    from logitcask.student.data.dataset import SoftTargetDataset as SoftTargetDataset
    from logitcask.student.data.mixture import MixedDataset as MixedDataset
    from logitcask.student.evaluation.evaluate import evaluate as evaluate
    from logitcask.student.losses.linear_truncated_kl import linear_truncated_kl as linear_truncated_kl
    from logitcask.student.losses.loss_settings import LossSettings as LossSettings
    from logitcask.student.losses.targets import RaggedTargets as RaggedTargets
    from logitcask.student.losses.truncated_kl import truncated_kl as truncated_kl
    from logitcask.student.training.trainer import SoftTargetTrainer as SoftTargetTrainer

_MODULES = {
    "pipeline.config": ("AnnotateConfig",),
    "pipeline.job": ("JobResult", "annotate"),
    "schemas.dataset.dataset": ("Dataset",),
    "schemas.dataset.dataset_writer": ("DatasetWriter",),
    "schemas.dataset.identity": ("Identity",),
    "schemas.dataset.snapshot": ("Snapshot",),
    "schemas.errors": ("LogitcaskError",),
    "schemas.format.metadata": ("TeacherInfo", "TokenizerInfo"),
    "schemas.format.targets": ("Kind", "Part", "TailSample", "Targets", "Windows"),
    "schemas.maintenance.verify": ("verify",),
    "student.alpha_schedule": ("AlphaSchedule",),
    "student.data.collator": ("collate", "targets_of"),
    "student.data.dataset": ("SoftTargetDataset",),
    "student.data.mixture": ("MixedDataset",),
    "student.evaluation.evaluate": ("evaluate",),
    "student.losses.linear_truncated_kl": ("linear_truncated_kl",),
    "student.losses.loss_settings": ("LossSettings",),
    "student.losses.targets": ("RaggedTargets",),
    "student.losses.truncated_kl": ("truncated_kl",),
    "student.training.trainer": ("SoftTargetTrainer",),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
