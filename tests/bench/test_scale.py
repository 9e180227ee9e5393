"""The simulation of a very large job stays within a memory bound, here with 20,000 units."""

import subprocess
import sys

import pytest
from repository import ROOT

BENCH = ROOT / "bench"


@pytest.mark.slow
def test_a_job_of_20000_units_resumes_and_finishes_in_bounded_memory() -> None:
    """The libraries take about 200 MB; the waves of the runner take the same for any number of units."""
    command = [sys.executable, str(BENCH / "scale.py"), "--units", "20000"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stderr
    *_, last = (line for line in finished.stdout.splitlines() if line.endswith(" MB"))
    assert float(last.split()[-2]) < 600, finished.stdout
