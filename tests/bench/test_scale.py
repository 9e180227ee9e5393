"""A very large job in little memory: the simulation of a million units, with fewer."""

import subprocess
import sys

import pytest
from repository import ROOT

BENCH = ROOT / "bench"


@pytest.mark.slow
def test_twenty_thousand_units_are_planned_resumed_and_finished_in_bounded_memory() -> None:
    """About 200 MB are the libraries', and the waves of the runner are the same for any number of units."""
    words = [sys.executable, str(BENCH / "scale.py"), "--units", "20000"]
    finished = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stderr
    *_, last = (line for line in finished.stdout.splitlines() if line.endswith(" MB"))
    assert float(last.split()[-2]) < 600, finished.stdout
