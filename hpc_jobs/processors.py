"""How many processors there are for us."""

from __future__ import annotations

import os


def processors() -> int:
    """How many processors this process may use; a container or batch system may allow fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def our_share() -> int:
    """How many of them are ours: fewer where `OMP_NUM_THREADS` says so, as in parts of an array.

    OpenMP takes a list there, too, of which the first counts; what it cannot read it leaves out.
    """
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(processors(), int(said)) if said.isdecimal() and int(said) else processors()
