"""A worker process of the local runner: Beam's own worker, quiet, and gone when its driver is."""

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from pipeline.messages import silence_libraries

_PARENT_CHECK_SECONDS = 1.0


def main() -> None:
    """Serves the driver until it is done with this worker."""
    silence_libraries()
    # Ctrl-C reaches the whole process group; the driver alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    import grpc
    from apache_beam.runners.worker import sdk_worker_main

    # What goes wrong in a unit is noted for the driver (`pipeline.heartbeats`), which tells the user once. Beam would
    # print it here as well, and its despair when the driver leaves.
    logging.disable(logging.CRITICAL)
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for the life of the process
    try:
        sdk_worker_main.main(sys.argv)
    except grpc.RpcError:
        os._exit(1)


def _die_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
