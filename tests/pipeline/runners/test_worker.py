"""A worker process of the local runner."""

import subprocess
import sys
from pathlib import Path

ORPHAN = """
import os, subprocess, sys, threading
child = '''
import os, sys, threading
from logitcask.pipeline.runners import worker
from logitcask.pipeline.units import leases
worker._PARENT_CHECK_SECONDS = 0.05
with leases.hold_lease("u", leases.UnitLimits(out=sys.argv[1]), print):
    threading.Thread(target=worker._die_with_parent, args=(os.getppid(),), daemon=True).start()
    print("held", flush=True)
    threading.Event().wait(60)
'''
process = subprocess.Popen([sys.executable, "-c", child, sys.argv[1]], stdout=subprocess.PIPE)
process.stdout.readline()
"""


def test_a_worker_whose_driver_died_ends_and_releases_its_lease(tmp_path: Path) -> None:
    # The pipe that the grandchild inherits is closed when it ends.
    driver = [sys.executable, "-c", ORPHAN, str(tmp_path)]
    subprocess.run(driver, check=True, stderr=subprocess.PIPE, timeout=60)
    assert list((tmp_path / "attempts").iterdir()) == []
