"""How many processors there are for us."""

from __future__ import annotations

import os


def processors() -> int:
    """How many processors this process may use; a container or batch system may allow fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
