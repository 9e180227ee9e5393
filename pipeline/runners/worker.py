"""A worker process of the local runner: Beam's worker, quiet, on its own GPU, and ended when its driver ends."""

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from logitcask.pipeline.runners.local_workers import (
    DEVICES_VARIABLE,
    DIRECTORY_VARIABLE,
    WarningFile,
    device_of,
    take_place,
)
from logitcask.pipeline.runners.messages import silence_libraries
from logitcask.pipeline.units.leases import release_leases, wait_until_idle
from logitcask.schemas.terminal.guard import guard_output

_PARENT_CHECK_SECONDS = 1.0


def main() -> None:
    """Serves the driver until the driver ends the stage."""
    guard_output()
    silence_libraries()
    # Ctrl-C reaches the whole process group; only the driver handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    _set_up(Path(os.environ[DIRECTORY_VARIABLE]), os.environ[DEVICES_VARIABLE])
    import grpc
    from apache_beam.runners.worker import sdk_worker_main

    # A unit's error is reported to the driver (`pipeline.units.heartbeats`), which shows it once. Beam would print it
    # here as well, and further errors when the driver disconnects.
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for the life of the process
    try:
        sdk_worker_main.main(sys.argv)
        wait_until_idle()
    except grpc.RpcError:
        # The driver ended this stage, perhaps because another worker died: the current unit is still finished.
        wait_until_idle()
        os._exit(1)


def _set_up(directory: Path, devices: str) -> None:
    """Takes a place, selects its GPU (before torch is imported), and relays warnings to the driver."""
    device = device_of(take_place(directory), devices)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    logger = logging.getLogger("logitcask")
    logger.addHandler(WarningFile(directory))
    logger.propagate = False


def _die_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    release_leases()
    os._exit(1)


if __name__ == "__main__":
    main()
