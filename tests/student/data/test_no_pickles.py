"""Reading a dataset never unpickles anything: proven by Python's own audit events, in a process of its own."""

import subprocess
import sys

import pytest

PROGRAM = """
import pickle, sys
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.schemas import cli
from logitcask.schemas.maintenance.verify import verify
from logitcask.schemas.dataset.snapshot import load_snapshot

seen = []
sys.addaudithook(lambda event, arguments: seen.append(arguments) if event == "pickle.find_class" else None)
url = sys.argv[1]
verify(url)
assert cli.main(["inspect", url]) == 0
for split in load_snapshot(url).splits:
    dataset = SoftTargetDataset(url, split)
    for index in range(len(dataset)):
        dataset[index]
assert not seen, seen
pickle.loads(pickle.dumps(sys.exit))
assert seen, "the hook must see what there is to see"
"""


@pytest.mark.slow
def test_reading_verifying_and_inspecting_a_dataset_unpickles_nothing(dataset_url: str) -> None:
    finished = subprocess.run([sys.executable, "-c", PROGRAM, dataset_url], capture_output=True, text=True, timeout=200)
    assert finished.returncode == 0, finished.stderr
