"""One `serve` a home: the lock, and the servers that a killed `serve` has left behind."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import time
from pathlib import Path
from typing import IO

from label_studio_config.home import Home
from label_studio_config.processes import HostingError

logger = logging.getLogger(__name__)

LOCK_NAME = "serve.lock"


class ServeLock:
    """Held while a home is served; goes with the process, however that ends.

    The file only says who holds it: our process on the first line, a server on each other.

    Raises
    ------
    HostingError
        If another process serves this home.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self._file: IO[str] = (home.folder / LOCK_NAME).open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = self._pids()[:1]
            self._file.close()
            raise HostingError(
                f"{home.folder} is being served already (process {holder[0] if holder else '?'}): "
                f"stop that first, or name another home with PLANKTRAIT_HOME"
            ) from error
        for pid in self._pids()[1:]:
            _stop_leftover(home, pid)
        self.write([])

    def write(self, server_pids: list[int]) -> None:
        """Note the servers, so that the next `serve` can stop them if we are killed."""
        self._file.truncate(0)
        self._file.write("\n".join(str(pid) for pid in [os.getpid(), *server_pids]))
        self._file.flush()

    def release(self) -> None:
        """Give the lock back; safe to repeat."""
        if not self._file.closed:
            self._file.truncate(0)
            self._file.close()

    def _pids(self) -> list[int]:
        self._file.seek(0)
        return [int(line) for line in self._file.read().split() if line.isdigit()]


def _stop_leftover(home: Home, pid: int) -> None:
    if not _serves(home, pid):
        return
    logger.warning("Stopping server %d, left over from a `planktrait serve` that was killed", pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            time.sleep(0.1)
            os.kill(pid, 0)
        os.killpg(pid, signal.SIGKILL)


def _serves(home: Home, pid: int) -> bool:
    """Whether a process is a server of this home; the system may have given its number away."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        leads_its_group = os.getpgid(pid) == pid
    except (OSError, ValueError):
        return False
    return leads_its_group and f"PLANKTRAIT_HOME={home.folder}".encode() in environment
