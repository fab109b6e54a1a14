"""What errors say, with those that have led to them; and that of jobs."""

from __future__ import annotations

import errno
from collections.abc import Iterator

MAKE_ROOM = "make room, and start it again"


class JobError(RuntimeError):
    """A job has no result (it failed, was cancelled, was killed, or is not done), was not taken by
    Slurm, or cannot be cancelled from here."""


def told(error: BaseException) -> str:
    """An error in one line; a full disk with what to do, however a library words it."""
    return full_disk(error) or f"{type(error).__name__}: {error}"


def full_disk(error: BaseException) -> str | None:
    """What to do, where an error comes from a disk that is full, and does not say so itself."""
    for one in chain(error):
        if MAKE_ROOM in str(one):
            return None
        full = isinstance(one, OSError) and one.errno in {errno.ENOSPC, errno.EDQUOT}
        if full or "No space left on device" in str(one):
            return f"the disk is full: {MAKE_ROOM} ({type(one).__name__}: {one})"
    return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that have led to it."""
    one: BaseException | None = error
    seen: set[int] = set()
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
