"""One training of a model at a time: a job waits for its turn."""

from __future__ import annotations

import time
from pathlib import Path

from filelock import FileLock, Timeout

from hpc_jobs import progress

LONGEST_WAIT_S = 3600.0
SECONDS_BETWEEN_LOOKS = 2.0


def await_turn(lock_file: Path, longest_wait_s: float = LONGEST_WAIT_S) -> bool:
    """Wait until nobody holds the lock of a training; whether it was free in the end."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    end_s = time.monotonic() + longest_wait_s
    while True:
        try:
            with FileLock(lock_file, timeout=0):
                return True
        except Timeout:
            if time.monotonic() >= end_s:
                return False
        progress.report("waiting for another training", 0, 0)
        time.sleep(SECONDS_BETWEEN_LOOKS)
