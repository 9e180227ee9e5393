"""A worker process of the local runner: Beam's own worker, quiet, on its own GPU, and gone when its driver is."""

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

_PARENT_CHECK_SECONDS = 1.0


def main() -> None:
    """Serves the driver until it is done with this worker."""
    silence_libraries()
    # Ctrl-C reaches the whole process group; the driver alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    _settle(Path(os.environ[DIRECTORY_VARIABLE]), os.environ[DEVICES_VARIABLE])
    import grpc
    from apache_beam.runners.worker import sdk_worker_main

    # What goes wrong in a unit is noted for the driver (`pipeline.units.heartbeats`), which tells the user once. Beam
    # would print it here as well, and its despair when the driver leaves.
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for the life of the process
    try:
        sdk_worker_main.main(sys.argv)
        wait_until_idle()
    except grpc.RpcError:
        # The driver gave this stage up, perhaps because another worker died: the unit at hand is finished all the same.
        wait_until_idle()
        os._exit(1)


def _settle(directory: Path, devices: str) -> None:
    """Takes a place among the workers, with its GPU (before torch is imported), and sends warnings to the driver."""
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
