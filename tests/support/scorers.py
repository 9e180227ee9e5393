"""The product's own scorer over a model that a test holds."""

from typing import Any

from transformers import PreTrainedModel

from logitcask.schemas.format.scheme import Scheme
from logitcask.teacher.scoring.huggingface import HuggingFaceTrunk
from logitcask.teacher.scoring.trunk_scorer import TrunkScorer


def scorer_of(model: PreTrainedModel, scheme: Scheme, **options: Any) -> TrunkScorer:
    return TrunkScorer(HuggingFaceTrunk(model), scheme, **options)
