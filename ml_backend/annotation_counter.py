"""How many annotations came since the last training: one small file a project, any worker."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path


class AnnotationCounter:
    """Counts annotations towards the next training, across the processes of a web server.

    Parameters
    ----------
    file : Path
        Made when missing; its folder too.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def add(self, count: int, every: int) -> bool:
        """Count `count` more; True, and from zero again, when `every` is reached."""
        return self._change(lambda counted: counted + count, every)

    def reset(self) -> None:
        """From zero again: a training was started for another reason."""
        self._change(lambda counted: 0, 0)

    def _change(self, change: Callable[[int], int], every: int) -> bool:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read().strip()
            counted = change(int(text) if text.isdigit() else 0)
            reached = 0 < every <= counted
            file.truncate(0)
            file.write("0" if reached else str(counted))
        return reached
