"""Is a process that was seen once still the same one, and alive?"""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that is not mistaken for a later one with the same number.

    Attributes
    ----------
    pid : int
    started_ticks : int
        Start of the process in clock ticks after the boot (proc(5), field 22 of stat); 0 where
        the system does not tell.
    host : str
        Name of the machine. Its number means nothing on another one: there it must not be
        signalled, and whether it is alive is told by the files it writes (see `records`).
    """

    pid: int
    started_ticks: int
    host: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """The identity of a running process of this machine."""
        return cls(pid, _start_and_state(pid)[0], socket.gethostname())

    @classmethod
    def from_json(cls, content: Any) -> ProcessIdentity | None:
        """Read back what `as_json` gave; None for anything else."""
        try:
            return cls(**content)
        except TypeError:
            return None

    def as_json(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
        return asdict(self)

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Whether this very process runs on this machine (a zombie does not)."""
        if not self.is_here:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        started_ticks, state = _start_and_state(self.pid)
        return started_ticks == self.started_ticks and state not in {"Z", "X"}


def _start_and_state(pid: int) -> tuple[int, str]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0, "X" if Path("/proc/self").exists() else "?"
    # The command name, in brackets, may itself hold brackets and spaces.
    fields = stat.rpartition(")")[2].split()
    return int(fields[19]), fields[0]
