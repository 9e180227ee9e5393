"""Loading a checkpoint: nothing that could run code is unpickled."""

import os
import pickle

import pytest
import torch

from logitcask.schemas.errors import CorruptShardError
from logitcask.student.training.safe_loading import loading


class Hostile:
    def __reduce__(self):
        return os.getpid, ()


def test_a_reader_that_would_unpickle_anything_may_not(tmp_path):
    torch.save(Hostile(), tmp_path / "any.pt")
    with pytest.raises(CorruptShardError, match="something else than tensors"), loading(tmp_path):
        torch.load(tmp_path / "any.pt", weights_only=False)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_hostile_metadata_of_a_sharded_checkpoint_are_refused(tmp_path):
    (tmp_path / "optimizer_0").mkdir()
    (tmp_path / "optimizer_0" / ".metadata").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(CorruptShardError, match=r"\.metadata names posix\.getpid"), loading(tmp_path):
        pytest.fail("must not be reached")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_sharded_checkpoint_of_torch_is_read(tmp_path):
    from torch.distributed import checkpoint

    stored = {"weight": torch.ones(3, 4), "half": torch.ones(2, dtype=torch.bfloat16), "groups": [{"lr": 0.1}]}
    checkpoint.save(stored, checkpoint_id=tmp_path, no_dist=True)
    found = {"weight": torch.zeros(3, 4), "half": torch.zeros(2, dtype=torch.bfloat16), "groups": [{"lr": 0.0}]}
    with loading(tmp_path):
        checkpoint.load(found, checkpoint_id=tmp_path, no_dist=True)
    assert torch.equal(found["weight"], stored["weight"])
    assert found["groups"] == stored["groups"]


def test_memory_that_is_exhausted_is_not_called_damage(tmp_path):
    with pytest.raises(torch.OutOfMemoryError), loading(tmp_path):
        raise torch.OutOfMemoryError
