"""The numeric environment."""

import json

import torch

from logitcask.teacher.model.environment import numeric_environment

SETTINGS = {"device": "cpu", "dtype": "float32", "attention": "sdpa", "batch_tokens": 4096, "row_chunk": 256}


def test_it_is_json_and_repeatable():
    first = numeric_environment(**SETTINGS)
    assert json.loads(json.dumps(first)) == first == numeric_environment(**SETTINGS)


def test_it_changes_with_the_number_of_threads():
    before, num_threads = numeric_environment(**SETTINGS), torch.get_num_threads()
    torch.set_num_threads(num_threads + 1)
    try:
        assert numeric_environment(**SETTINGS) != before
    finally:
        torch.set_num_threads(num_threads)


def test_it_names_the_cpu_and_its_instruction_sets():
    device = numeric_environment(**SETTINGS)["device"]
    assert device["kind"] == "cpu"
    assert device["capability"] == torch.backends.cpu.get_cpu_capability()
    assert device["instruction_sets"] == sorted(device["instruction_sets"])
