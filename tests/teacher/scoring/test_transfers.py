"""Copies between the host and a device."""

import numpy as np
import pytest
import torch

from logitcask.teacher.scoring.transfers import to_device, to_host


def test_on_the_cpu_values_and_tensor_share_memory() -> None:
    values = np.arange(4)
    tensor = to_device(values, torch.device("cpu"))
    values[2] = 7
    assert tensor.tolist() == [0, 1, 7, 3]
    assert to_host({"a": tensor})["a"].data_ptr() == tensor.data_ptr()


@pytest.mark.gpu
def test_copies_to_a_gpu_and_back_keep_every_value() -> None:
    values = np.random.default_rng(0).standard_normal((300, 7)).astype(np.float32)
    on_gpu = to_device(values, torch.device("cuda"))
    back = to_host({"values": on_gpu, "row": on_gpu[5], "host": torch.arange(3)})
    assert on_gpu.device.type == "cuda"
    assert {name: tensor.device.type for name, tensor in back.items()} == dict.fromkeys(back, "cpu")
    assert not back["values"].is_pinned()
    np.testing.assert_array_equal(back["values"].numpy(), values)
    np.testing.assert_array_equal(back["row"].numpy(), values[5])
