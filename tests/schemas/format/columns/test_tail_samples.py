"""Sample columns: one for each replica, read in the order of the replicas."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from logitcask.schemas.errors import VocabularyError
from logitcask.schemas.format.columns.family import StoredColumns
from logitcask.schemas.format.columns.tail_samples import TailSampleColumns, sample_columns
from logitcask.schemas.format.ragged import Lists
from logitcask.schemas.format.scheme import ThresholdSamplingScheme
from logitcask.schemas.format.targets import TailSample


def test_the_first_replica_has_no_number(metadata):
    sampled = dataclasses.replace(metadata, scheme=ThresholdSamplingScheme(replicas=3))
    assert sample_columns(sampled) == ["tail_sample", "tail_sample@1", "tail_sample@2"]
    assert sample_columns(metadata) == []


def test_replicas_are_ordered_by_number():
    names = ["tail_sample@10", "tail_sample", "tail_sample@2"]
    lists = {name: Lists(values=np.array([at], np.int32), offsets=np.array([0, 1])) for at, name in enumerate(names)}
    samples = TailSampleColumns().decode(StoredColumns(single=pa.table({}), lists=lists))["tail_samples"]
    assert [sample.ids.tolist() for sample in samples] == [[1], [2], [0]]


def test_a_drawn_id_outside_the_vocabulary_is_refused(targets, metadata):
    sample = TailSample(ids=np.array([-1], np.int32), offsets=np.array([0, 1]))
    with pytest.raises(VocabularyError, match="tail_sample id -1 at entry 0"):
        list(TailSampleColumns().encode(dataclasses.replace(targets, tail_samples=(sample,)), metadata, None))
